# SPDX-License-Identifier: Apache-2.0
"""Read `upstreams.toml`: what is pinned, and the one line that is put into an upstream."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from recipe.sources.errors import SourcesError, UsageError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_SHA256 = re.compile(r"[0-9a-f]{64}")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Pin:
    """One upstream. Either `file` and `sha256` (from the package index) or `git` and `commit` are set.

    packages: top-level directories that are copied.  entry_points (group -> name -> object) and generate (path ->
    text): for sources from git, what a build would have written.
    """

    name: str
    version: str
    packages: tuple[str, ...]
    file: str = ""
    sha256: str = ""
    git: str = ""
    commit: str = ""
    entry_points: dict[str, dict[str, str]] = field(default_factory=dict)
    generate: dict[str, str] = field(default_factory=dict)

    @property
    def dist_info(self) -> str:
        return f"{self.name.replace('-', '_')}-{self.version}.dist-info"

    @property
    def is_wheel(self) -> bool:
        return self.file.endswith(".whl")

    @property
    def origin(self) -> str:
        """What it is taken from, for messages."""
        return self.file or self.git


@dataclass(frozen=True)
class Prelude:
    """The line put into `file` right below the line `after`; the line `before` must come later."""

    file: str
    after: str
    before: str
    line: str


@dataclass(frozen=True)
class Profile:
    """A profile's pins, and those of other profiles that the user has put beside them (`beside` names these)."""

    name: str
    pins: tuple[Pin, ...]
    prelude: Prelude
    beside: tuple[str, ...] = ()

    def pin(self, name: str) -> Pin | None:
        return next((pin for pin in self.pins if pin.name == name), None)


@dataclass(frozen=True)
class Pins:
    """All of `upstreams.toml`."""

    file: Path
    profiles: dict[str, Profile]

    def profile(self, name: str, beside: Iterable[str] = ()) -> Profile:
        """Profile `name` with the pins `beside` of other profiles, where it does not have them itself.

        UsageError: an unknown profile, or a pin that no profile has.
        """
        if name not in self.profiles:
            raise UsageError(f"{self.file} has no profile {name!r}; it has {', '.join(self.profiles)}")
        own = self.profiles[name]
        known = {pin.name: pin for profile in reversed(self.profiles.values()) for pin in profile.pins}
        beside = tuple(sorted(set(beside)))
        for extra in beside:
            if extra not in known:
                choice = ", ".join(sorted(known.keys() - {pin.name for pin in own.pins})) or "none"
                raise UsageError(f"{self.file} has no upstream {extra!r}; beside profile {name} it has {choice}")
        added = tuple(known[extra] for extra in beside if own.pin(extra) is None)
        return replace(own, pins=own.pins + added, beside=beside)

    def complete(self, pin: Pin) -> Pin:
        """`pin` with what another profile says of what a build of that version writes, where it does not say it."""
        same = [other for profile in self.profiles.values() if (other := profile.pin(pin.name)) is not None]
        for other in same:
            if other.version == pin.version:
                pin = replace(
                    pin, entry_points=pin.entry_points or other.entry_points, generate=pin.generate or other.generate
                )
        return pin


def read_pins(file: Path) -> Pins:
    """Read `file`; SourcesError names the entry and the field that is wrong."""
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SourcesError(f"{file} does not exist; run this from a checkout of the recipe") from None
    except tomllib.TOMLDecodeError as error:
        raise SourcesError(f"{file} is not valid TOML: {error}") from None
    try:
        prelude = Prelude(**content.pop("prelude"))
    except (KeyError, TypeError) as error:
        raise SourcesError(f"{file}: [prelude] needs exactly file, after, before and line ({error})") from None
    wrong = [name for name, table in content.items() if not isinstance(table, dict)]
    if wrong:
        raise SourcesError(f"{file}: {wrong[0]} is not a profile; expected tables such as [{wrong[0]}.NAME]")
    return Pins(
        file,
        {
            name: Profile(name, tuple(_pin(file, name, key, value) for key, value in table.items()), prelude)
            for name, table in content.items()
        },
    )


def _pin(file: Path, profile: str, name: str, value: Any) -> Pin:
    where = f"{file}: [{profile}.{name}]"
    if not isinstance(value, dict):
        raise SourcesError(f"{where}: expected a table")
    fields = {key.replace("-", "_"): item for key, item in value.items()}
    fields["packages"] = tuple(fields.get("packages", ()))
    try:
        pin = Pin(name=name, **fields)
    except TypeError as error:
        raise SourcesError(f"{where}: {error}") from None
    if not pin.packages:
        raise SourcesError(f"{where}: packages= names no directory")
    if pin.git and not _COMMIT.fullmatch(pin.commit):
        raise SourcesError(f"{where}: commit={pin.commit!r} is not a full commit (40 hex digits)")
    if not pin.git and (not pin.file or "/" in pin.file or not _SHA256.fullmatch(pin.sha256)):
        raise SourcesError(f"{where}: needs file= and sha256= (64 hex digits), or git= and commit=")
    return pin
