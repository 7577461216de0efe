# SPDX-License-Identifier: Apache-2.0
"""TOML text of plain values: what `tomllib` reads, written again."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any


def as_toml(values: Mapping[str, Any]) -> str:
    """`values` as TOML: each top-level table as a section, what is in it on a line each."""
    loose = {key: value for key, value in values.items() if not isinstance(value, Mapping)}
    parts = ["".join(f"{_key(key)} = {_value(value)}\n" for key, value in loose.items())] if loose else []
    for name, section in values.items():
        if isinstance(section, Mapping):
            lines = [f"[{_key(name)}]", *(f"{_key(key)} = {_value(value)}" for key, value in section.items())]
            parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def _key(name: str) -> str:
    return name if name.isascii() and name.replace("_", "").replace("-", "").isalnum() else _text(name)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else str(value)
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(key)} = {_value(item)}" for key, item in value.items()) + "}"
    return str(value)  # whole numbers, and times, which TOML writes as ISO 8601


def _text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
