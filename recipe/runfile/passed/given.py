# SPDX-License-Identifier: Apache-2.0
"""What is given under `[verl]` or after `--`, as one table of values by the full key of verl's configuration.

A key may begin with `+` (new in verl's configuration) or `++` (new, or not), as on Hydra's command line; the mark stays
on the key. Values are None, true or false, numbers, text, and lists of them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from recipe.runfile.errors import ConfigError
from recipe.runfile.hydra import quote
from recipe.runfile.masking import HIDDEN, has_password
from recipe.runfile.typed_toml import LONGEST_TEXT, shown

SECTION = "verl"
_KEY = re.compile(r"\+{0,2}[A-Za-z_][\w-]*(?:\.[A-Za-z_][\w-]*)*")
# TOML has no null.
_NULL = "null"


def bare(key: str) -> str:
    """A key without its mark.

    >>> bare("++trainer.wandb_proxy")
    'trainer.wandb_proxy'
    """
    return key.lstrip("+")


def flattened(table: Mapping[str, Any], label: str) -> dict[str, Any]:
    """The values of a table of TOML by their full keys: nested tables and keys with dots mean the same.

    Args:
        table: the content of `[verl]`. The text "null" stands for no value.
        label: begins every message.

    Raises:
        ConfigError: what is no key of a configuration, is there twice, or has a value that verl cannot be given.
    """
    values: dict[str, Any] = {}
    for key, value in _leaves(table, ""):
        _require_key(key, label)
        if any(bare(key) == bare(other) for other in values):
            raise ConfigError(f"{label}{bare(key)} is there twice, as a key with dots and in a table; remove one")
        values[key] = _value(None if value == _NULL else value, f"{label}{bare(key)}")
    return values


def parsed(items: Sequence[str]) -> dict[str, Any]:
    """The values of `KEY=VALUE ...`, read by Hydra's own grammar; a later one takes the place of an earlier.

    Raises:
        ConfigError: an item that is none, or asks Hydra for what is no setting: a sweep, another file, a removal.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    values: dict[str, Any] = {}
    parser = OverridesParser.create()
    for item in items:
        label = f"-- {shown(item.partition('=')[0] + f'={HIDDEN}' if has_password(item) else item)}: "
        if item.startswith("~"):
            raise ConfigError(f"{label}verl reads every key of its configuration; give KEY=null instead of removing it")
        if "=" not in item or item.startswith("-"):
            raise ConfigError(f"{label}expected KEY=VALUE, a setting of verl such as trainer.log_val_generations=8")
        if item.partition("=")[0].lstrip("+").startswith("hydra"):
            raise ConfigError(f"{label}hydra's own settings are the launcher's; expected a setting of verl")
        try:
            override = parser.parse_override(item)
        except HydraException as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(
                f"{label}{reason}; expected KEY=VALUE, with text of other than letters in '...'"
            ) from None
        if override.package is not None or "/" in override.key_or_group:
            raise ConfigError(f"{label}names another file of verl's configuration; expected KEY=VALUE with one key")
        value = override.value()
        if override.is_sweep_override() or not isinstance(value, (type(None), bool, int, float, str, list, dict)):
            raise ConfigError(f"{label}asks for several runs, and a launch is one; expected one value, a list in [...]")
        mark = item[: len(item) - len(bare(item))]
        table = value if isinstance(value, dict) and value else {"": value}
        for name, part in _leaves(table, ""):
            key = f"{mark}{override.key_or_group}{'.' * bool(name)}{name}"
            _require_key(key, label)
            values = merged(values, {key: _value(part, label.removesuffix(": "))})
    return values


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """The values of both; `above` wins, whatever the marks of the keys are."""
    replaced = {bare(key) for key in above}
    return {key: value for key, value in below.items() if bare(key) not in replaced} | dict(above)


def taken_over(values: Mapping[str, Any]) -> list[str]:
    """The values as overrides of Hydra's command line, in the order of their keys."""
    return [f"{key}={quote(value)}" for key, value in sorted(values.items(), key=lambda pair: bare(pair[0]))]


def _leaves(table: Mapping[Any, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in table.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{key}.")
        else:
            yield key, value


def _require_key(key: str, label: str) -> None:
    if not _KEY.fullmatch(key):
        expected = "a key of verl's configuration such as trainer.log_val_generations, with + before a new one"
        raise ConfigError(f"{label}{shown(key)} cannot be a key; expected {expected}")


def _value(value: Any, label: str) -> Any:
    """The value, if it is one that Hydra's command line can carry."""
    if isinstance(value, list):
        return [_value(element, label) for element in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{label} is {value}; expected a finite number")
    if isinstance(value, str):
        if has_password(value):
            raise ConfigError(
                f"{label} is an address with a password, which would be in the run's files; expected one without; the "
                "password goes into a variable of the environment"
            )
        if len(value) > LONGEST_TEXT or any(letter < " " or letter == "\x7f" for letter in value):
            raise ConfigError(
                f"{label} is {shown(value)}; expected text of one line, of {LONGEST_TEXT} letters at most"
            )
    elif not (value is None or isinstance(value, (bool, int, float))):
        raise ConfigError(f"{label} is {shown(value)} ({type(value).__name__}); expected a number, text, or a list")
    quote(value)
    return value
