# SPDX-License-Identifier: Apache-2.0
"""TOML values as typed dataclasses: what does not fit is refused with one line that names the nearest right key.

A field made by `key` has a meaning, a unit and limits; `docs/CONFIG.md` is made from these.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Collection
from typing import Any

from recipe.runfile.errors import ConfigError
from recipe.runfile.masking import HIDDEN, is_secret

REQUIRED = dataclasses.MISSING
# What a changed value means to a run that goes on from a checkpoint. FREE: it stays the same run, computed elsewhere or
# in another way. CHANGES: it becomes another run, which has to be accepted. IMPOSSIBLE: the checkpoint does not fit.
FREE, CHANGES, IMPOSSIBLE = ON_RESUME = ("free", "changes", "impossible")
# No name, address or path of a run file is longer; PATH_MAX of Linux.
LONGEST_TEXT = 4096
# Limits of numbers whose key sets no other: what 32 bits hold, and what float32 can still be multiplied with.
LARGEST_WHOLE = 2**31 - 1
LARGEST_NUMBER = 1e12
_SHOWN = 80


def key(
    meaning: str,
    default: Any = REQUIRED,
    *,
    on_resume: str,
    per_node: bool = False,
    unit: str = "",
    gives: str = "",
    choices: Collection[str] = (),
    least: float | None = None,
    most: float | None = None,
) -> Any:
    """A field of a section.

    Args:
        meaning: one or two sentences for the user.
        default: its value where the file leaves it out; without one the file must have it.
        on_resume: one of ON_RESUME.
        per_node: whether it may differ between the nodes of one run.
        unit: of the value, if it is not a count.
        gives: the settings of verl and variables of the environment that follow from it, with ", " between them.
        choices: the texts it may be, or its elements.
        least, most: limits of a number, both included; whole numbers are never negative. Default for `most`:
            LARGEST_WHOLE or LARGEST_NUMBER.
    """
    assert on_resume in ON_RESUME
    about = {
        **{"meaning": meaning, "unit": unit, "gives": gives, "on_resume": on_resume, "per_node": per_node},
        **{"choices": tuple(choices), "least": least, "most": most},
    }
    if default is REQUIRED:
        return dataclasses.field(metadata=about)
    if isinstance(default, (dict, list)):
        return dataclasses.field(default_factory=lambda: type(default)(default), metadata=about)
    return dataclasses.field(default=default, metadata=about)


def build(cls: type[Any], values: dict[str, Any], where: str, section: str = "") -> Any:
    """An instance of the dataclass `cls` from TOML values; `section` is the dotted path of keys down to it.

    Raises:
        ConfigError: a key is unknown, missing, of another type, or beyond its limits.
    """
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}
    label = f"{where}: [{section}] " if section else f"{where}: "
    noun = "key" if section else "section"
    for name in values:
        if name not in fields:
            near = difflib.get_close_matches(name[:_SHOWN], fields, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(fields)}"
            raise ConfigError(f"{label}unknown {noun} {shown(name)}; {hint}")
    arguments = {}
    for name, declared in fields.items():
        if name not in values:
            if declared.default is REQUIRED and declared.default_factory is REQUIRED:
                what = f"it is a {describe(hints[name])}" if section else f"it begins with the line [{name}]"
                raise ConfigError(f"{label}{noun} {name!r} is missing; {what}")
            continue
        value, hint = values[name], _not_none(hints[name])
        if dataclasses.is_dataclass(hint):
            if not isinstance(value, dict):
                what = f"a table {name} = {{ ... }}" if section else f"a section [{name}]"
                raise ConfigError(f"{label}{name!r} is {shown(value)} ({type(value).__name__}); expected {what}")
            below = f"{section}.{name}" if section else name
            arguments[name] = build(typing.cast(type[Any], hint), value, where, below)
        else:
            arguments[name] = checked(cls, name, value, f"{label}{name}")
    return cls(**arguments)


def checked(cls: type[Any], name: str, value: Any, label: str) -> Any:
    """`value` with the type and within the limits of the field `name` of `cls`; messages call it `label`.

    Raises:
        ConfigError: it is of another type, or beyond the field's limits.
    """
    declared = next(field for field in dataclasses.fields(cls) if field.name == name)
    typed = _typed(_not_none(typing.get_type_hints(cls)[name]), value, label)
    _check_limits(typed, declared.metadata, label)
    return typed


def shown(value: Any) -> str:
    """A value as messages show it: never longer than a line."""
    text = repr(value[: 2 * _SHOWN] if isinstance(value, (str, list)) else value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."


def with_values(section: Any, values: dict[str, Any], label: str) -> Any:
    """The same section with other values, which are held to the limits of their keys.

    Args:
        section: an instance of a dataclass of keys.
        values: by key.
        label: goes before a key's name in a message: "--" for options.

    Raises:
        ConfigError: a value of another type, or beyond its limits.
    """
    return dataclasses.replace(
        section, **{name: checked(type(section), name, value, label + name) for name, value in values.items()}
    )


def _typed(hint: Any, value: Any, label: str) -> Any:
    if hint == dict[str, Any] and isinstance(value, dict):  # settings of verl, which recipe.runfile.passed looks at
        return value
    if typing.get_origin(hint) is list:
        (item,) = typing.get_args(hint)
        if isinstance(value, list) and value:
            return [_typed(item, element, label) for element in value]
    elif typing.get_origin(hint) is dict:
        _, item = typing.get_args(hint)
        if isinstance(value, dict) and value:
            return {key: _typed(item, element, f"{label}.{key}") for key, element in value.items()}
    elif hint is float and type(value) in (int, float):
        try:
            return float(value)
        except OverflowError:
            return math.inf  # beyond every limit
    elif type(value) is hint:
        if hint is str and (len(value) > LONGEST_TEXT or not all(map(_plain, value))):
            raise ConfigError(
                f"{label} is {_told(label, value)}; expected text of one line, of {LONGEST_TEXT} characters at most"
            )
        if hint is int and value < 0:
            raise ConfigError(f"{label} is {value}; expected a number that is not negative")
        return value
    raise ConfigError(f"{label} is {_told(label, value)} ({type(value).__name__}); expected a {describe(hint)}")


def _told(label: str, value: Any) -> str:
    return HIDDEN if is_secret(label.rpartition(".")[2]) else shown(value)


def _plain(letter: str) -> bool:
    return letter >= " " and letter != "\x7f"


def _check_limits(value: Any, about: Any, label: str) -> None:
    choices, least, most = about.get("choices"), about.get("least"), about.get("most")
    for text in (value if isinstance(value, list) else [value]) if choices else ():
        if text not in choices:
            near = difflib.get_close_matches(str(text)[:_SHOWN], choices, n=1, cutoff=0.5)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ConfigError(f"{label} is {shown(text)}; expected one of {', '.join(choices)}{hint}")
    for number in value if isinstance(value, list) else [value]:
        if isinstance(number, float) and not math.isfinite(number):
            raise ConfigError(f"{label} is {number}; expected a finite number")
        if least is not None and not number >= least:
            raise ConfigError(f"{label} is {number}; expected at least {least}")
        limit = most
        if limit is None and isinstance(number, (int, float)):
            limit = LARGEST_NUMBER if isinstance(number, float) else LARGEST_WHOLE
        if limit is not None and not number <= limit:
            raise ConfigError(f"{label} is {shown(number)}; expected at most {limit:.12g}")


def _not_none(hint: Any) -> Any:
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        return next(option for option in typing.get_args(hint) if option is not type(None))
    return hint


def describe(hint: Any) -> str:
    """A type in words, for error messages and docs/CONFIG.md."""
    hint = _not_none(hint)
    if dataclasses.is_dataclass(hint):
        return "section"
    if typing.get_origin(hint) is list:
        return f"list of {describe(typing.get_args(hint)[0])}s"
    if typing.get_origin(hint) is dict:
        item = typing.get_args(hint)[1]
        return "table" if item is Any else f"table of {describe(item)}s"
    return {int: "whole number", float: "number", str: "text", bool: "true or false"}.get(hint, str(hint))
