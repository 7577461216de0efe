# SPDX-License-Identifier: Apache-2.0
"""The upstream sources that a run is started on."""

from __future__ import annotations

from pathlib import Path

from recipe.audit.fit import verify
from recipe.runfile.errors import LaunchError


def require_sources(upstream: Path) -> None:
    """Refuses sources that are not there, or that our patches were not written for.

    Raises:
        LaunchError: says so, with the first patch that does not fit.
    """
    if not (upstream / "verl").is_dir():
        raise LaunchError(f"{upstream} holds no verl; run `python -m recipe sync` (or scripts/setup.sh) first")
    drifted = [fit.line for fit in verify([upstream]) if not fit.fits]
    if drifted:
        raise LaunchError("patches do not fit the upstream sources, see python -m recipe patches verify: " + drifted[0])
