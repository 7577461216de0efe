# SPDX-License-Identifier: Apache-2.0
"""Values in the grammar of Hydra's command line."""

from __future__ import annotations

import re
from typing import Any

from recipe.runfile.errors import ConfigError
from recipe.runfile.typed_toml import shown

_PLAIN_TEXT = re.compile(r"[A-Za-z0-9_./-]+")


def quote(value: Any) -> str:
    """`value` in Hydra's override grammar.

    Raises:
        ConfigError: a text that cannot be given as it is (`require_literal`).

    >>> quote(["console", "file"]), quote(None), quote("it's")
    ('[console,file]', 'null', "'it\\\\'s'")
    """
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(quote(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{quote(item)}" for key, item in value.items()) + "}"
    text = str(value)
    require_literal(text, "verl is to be given")
    looks_otherwise = text.lower() in ("null", "true", "false", "nan", "inf", "-inf") or re.fullmatch(
        r"[-+]?[0-9._]+(e[-+]?[0-9]+)?", text, re.IGNORECASE
    )
    if _PLAIN_TEXT.fullmatch(text) and not looks_otherwise:
        return text
    # In Hydra's quoted text a backslash is itself, except in a run of them before a quote or the end.
    escaped = re.sub(r"(\\*)'", lambda match: match[1] * 2 + "\\'", text)
    return "'" + re.sub(r"\\+$", lambda match: match[0] * 2, escaped) + "'"


def require_literal(text: str, label: str) -> None:
    """Refuse text with `${`: verl's configuration would replace what it takes for a reference.

    Escaping it would not help: verl resolves its configuration twice, and reads parts of it before that.

    Raises:
        ConfigError: says so, after `label`.
    """
    if "${" in text:
        raise ConfigError(
            f"{label} {shown(text)}; verl's configuration would put something in the place of ${{...}}: expected text "
            "without ${, such as a link of another name"
        )
