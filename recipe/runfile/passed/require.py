# SPDX-License-Identifier: Apache-2.0
"""Whether verl takes the settings of `[verl]`: known keys, right types, none that the recipe derives.

All of it is known before anything starts, from the composed configuration and from the source of the dataclasses that
it is made into: neither torch, Ray nor verl is imported.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from recipe.runfile.errors import ConfigError
from recipe.runfile.masking import is_secret
from recipe.runfile.passed.composed import config_directory, references, stock
from recipe.runfile.passed.declared import ANY, NONE, TABLE, Kinds, admits, fields_of, in_words, kind_of, names_read
from recipe.runfile.passed.derived_keys import DEFAULTS, DERIVED, ELSEWHERE
from recipe.runfile.passed.given import SECTION, bare
from recipe.runfile.passed.receivers import Receiver, receiver_of
from recipe.runfile.typed_toml import shown


def can_be_checked(upstream: Path) -> bool:
    """Whether verl's configuration is among the upstream sources."""
    return config_directory(upstream).is_dir()


def require_own(settings: Mapping[str, Any]) -> None:
    """Require that no setting is one that the recipe derives, or that would run code of a model's directory.

    Raises:
        ConfigError: names the key of the run file to set instead.
    """
    for key, value in settings.items():
        name = bare(key)
        for derived, keys in (*DERIVED.items(), *ELSEWHERE.items()):
            if derived not in DEFAULTS and (name == derived or f"{name}.".startswith(f"{derived}.")):
                raise ConfigError(f"[{SECTION}] {name} {_in_place_of(keys)}")
        last = name.rpartition(".")[2]
        if last == "trust_remote_code" and value:
            raise ConfigError(f"[{SECTION}] {name} would run code out of the model's directory; leave it out")
        if key != name and isinstance(value, str) and is_secret(last):
            raise ConfigError(
                f"[{SECTION}] {name} would be in the run's files as it is; put it into a variable of the environment"
            )


def _in_place_of(keys: tuple[str, ...]) -> str:
    if not keys:
        return "is set by the recipe, and no key of the run file changes it; leave it out"
    if len(keys) == 1:
        return f"follows from {keys[0]} of the run file; set that instead"
    return f"is worked out from {', '.join(keys[:-1])} and {keys[-1]} of the run file; set those instead"


def require_taken(settings: Mapping[str, Any], upstream: Path) -> None:
    """Require that verl's configuration has every key, or takes it as a new one, and with a value of that type.

    Args:
        settings: by key, with `+` or `++` before it or without.
        upstream: the tree of upstream sources, which holds verl's configuration.

    Raises:
        ConfigError: a key that verl does not have, with the nearest that it has; or a value of another type.
    """
    for key, value in settings.items():
        _Place(bare(key), upstream).require(key, value)


class _Place:
    """Where a key is in verl's configuration: `inner` is the innermost table on the way to it, `table` its content, and
    `rest` the names below."""

    def __init__(self, name: str, upstream: Path) -> None:
        self.name, self.upstream = name, upstream
        self.table: Mapping[str, Any] = stock(upstream)
        names, depth = name.split("."), 0
        self.fields: Mapping[str, Kinds] | None = None
        self.receiver: Receiver | None = None
        self.free = False
        while depth < len(names) - 1:
            below = self.table.get(names[depth])
            if not isinstance(below, Mapping):
                break
            self._enter(".".join(names[: depth + 1]), names[depth], below)
            self.table, depth = below, depth + 1
        self.inner, self.rest = ".".join(names[:depth]), names[depth:]

    def _enter(self, path: str, name: str, table: Mapping[str, Any]) -> None:
        in_free = self.free or (self.fields is not None and TABLE in self.fields.get(name, ()))
        target = table.get("_target_")
        self.fields = fields_of(self.upstream, target) if isinstance(target, str) else None
        self.receiver = receiver_of(path, self.upstream)
        self.free = self.fields is None and (in_free or not table)

    def require(self, key: str, value: Any) -> None:
        """Raises ConfigError where the key cannot be given like this."""
        first = self.rest[0]
        is_known = len(self.rest) == 1 and first in self.table
        if is_known:
            if key.startswith("+") and not key.startswith("++"):
                raise ConfigError(f"[{SECTION}] {key} is in verl's configuration already; leave the + out")
            self._require_leaf(value)
        elif (reason := self._refusal(first)) is not None:
            raise ConfigError(f"[{SECTION}] {reason}")
        elif not key.startswith("+"):
            raise ConfigError(f"[{SECTION}] {self.name} is new in verl's configuration; write it as +{self.name}")
        else:
            self._require_kind(value, self._admitted(first) if len(self.rest) == 1 else None)

    def _require_leaf(self, value: Any) -> None:
        before = self.table[self.rest[0]]
        if isinstance(before, Mapping):
            inside = ", ".join(name for name in before if not name.startswith("_")) or f"new ones, as +{self.name}.NAME"
            raise ConfigError(f"[{SECTION}] {self.name} is a table of verl's; give one of its keys: {inside}")
        kinds = self._admitted(self.rest[0])
        if kinds is None:
            kinds = frozenset((ANY,)) if before is None or before == "???" else frozenset((kind_of(before),))
        else:
            kinds |= {kind_of(before)}
        self._require_kind(value, kinds)

    def _admitted(self, name: str) -> Kinds | None:
        if self.receiver is not None and name in self.receiver.fields:
            return self.receiver.fields[name] | {NONE}
        return None if self.fields is None else self.fields.get(name)

    def _require_kind(self, value: Any, kinds: Kinds | None) -> None:
        if kinds is not None and not admits(kinds, value):
            raise ConfigError(
                f"[{SECTION}] {self.name} is {shown(value)} ({kind_of(value)}); expected {in_words(kinds)}"
            )

    def _refusal(self, first: str) -> str | None:
        """Why verl takes no new key here; None where it takes it."""
        if (target := self._reference()) is not None:
            return f"{self.name}: {target[0]} takes over {target[1]}; set it there"
        if self.receiver is not None:
            if first in self.receiver.given:
                return f"{self.name} is given to {self.receiver.name} by verl itself; leave it out"
            return None if first in self.receiver.fields else self._unknown(first, self.receiver.fields)
        if self.free:
            return None
        if self.fields is not None:
            kinds = self.fields.get(first, frozenset())
            taken = bool(kinds) if len(self.rest) == 1 else bool(kinds & {TABLE, ANY})
            return None if taken else self._unknown(first, [*self.table, *self.fields])
        is_table = self._read().get(first)
        if is_table is None or (len(self.rest) > 1 and not is_table):
            return self._unknown(first, [*self.table, *self._read()])
        return None

    def _reference(self) -> tuple[str, str] | None:
        """The table on the way to this key that stands for another one, and that one."""
        part: Any = references(self.upstream)
        names = self.name.split(".")
        for depth, name in enumerate(names):
            part = part.get(name) if isinstance(part, Mapping) else None
            if isinstance(part, str) and part.startswith("${") and depth < len(names) - 1:
                target = part.removeprefix("${").removeprefix("oc.select:").rstrip("}").partition(",")[0]
                return ".".join(names[: depth + 1]), target
        return None

    def _read(self) -> dict[str, bool]:
        """The names that verl reads from this table without having them in its configuration."""
        name, read = self.inner.rpartition(".")[2], names_read(self.upstream / "verl")
        found: dict[str, bool] = {}
        for receiver in (name, f"{name}_config", *(["config"] if name == "data" else []), *read.called(name)):
            found |= read.by.get(receiver, {})
        return found

    def _unknown(self, first: str, names: Any) -> str:
        near = difflib.get_close_matches(first, [name for name in names if not name.startswith("_")], n=1, cutoff=0.6)
        full = f"{self.inner}.{near[0]}" if near and self.inner else (near[0] if near else self._nearest())
        if full is None:
            return f"verl's configuration has no {self.name}; expected one of its keys, such as trainer.val_only"
        return f"verl's configuration has no {self.name}; did you mean {full}?"

    def _nearest(self) -> str | None:
        """The key of the whole configuration that resembles this one most, first of all one that ends like it."""
        every = list(_keys(stock(self.upstream), ""))
        ends = [key for key in every if key.endswith(f".{self.name}")]
        same = [key for key in every if key.rpartition(".")[2] == self.name.rpartition(".")[2]]
        near = ends or difflib.get_close_matches(self.name, same or every, n=1, cutoff=0.3 if same else 0.6)
        return near[0] if near else None


def _keys(table: Mapping[str, Any], prefix: str) -> Iterator[str]:
    for name, value in table.items():
        if isinstance(value, Mapping) and value:
            yield from _keys(value, f"{prefix}{name}.")
        elif not name.startswith("_"):
            yield f"{prefix}{name}"
