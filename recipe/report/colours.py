# SPDX-License-Identifier: Apache-2.0
"""Colours of the page and of the picture, by what they are for, in light and in dark windows."""

from __future__ import annotations

LIGHT = {"text": "#1c2430", "back": "#ffffff", "line": "#dde3ea", "note": "#5a6675", "failed": "#a02020"}
DARK = {"text": "#d7dde5", "back": "#14181d", "line": "#333b45", "note": "#98a4b3", "failed": "#ff8a80"}
CURVE_LIGHT, CURVE_DARK = "#0b63c5", "#6cb0ff"


def _variables(colours: dict[str, str]) -> str:
    return " ".join(f"--{name}: {colour};" for name, colour in colours.items())


# For style sheets that say var(--text).
VARIABLES = f"""
:root {{ color-scheme: light dark; {_variables(LIGHT)} }}
@media (prefers-color-scheme: dark) {{ :root {{ {_variables(DARK)} }} }}
"""
