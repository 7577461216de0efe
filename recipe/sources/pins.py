# SPDX-License-Identifier: Apache-2.0
"""Read `upstreams.toml`: what is pinned, and the one line that is put into an upstream."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from recipe.sources.errors import SourcesError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_SHA256 = re.compile(r"[0-9a-f]{64}")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Pin:
    """One upstream. Either `file` and `sha256` (from the package index) or `git` and `commit` are set.

    packages: top-level directories that are copied.  entry_points, generate: what a build would have written, for
    sources from git (group -> name -> object, and path -> text).
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


@dataclass(frozen=True)
class Prelude:
    """The line put into `file` right below the line `after`; the line `before` must come later."""

    file: str
    after: str
    before: str
    line: str


@dataclass(frozen=True)
class Profile:
    name: str
    pins: tuple[Pin, ...]
    prelude: Prelude

    def digest(self) -> str:
        """SHA-256 over everything that decides what `upstream/` holds."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


def read_profile(file: Path, name: str) -> Profile:
    """Read profile `name` from `file`; SourcesError names the entry and the field that is wrong."""
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SourcesError(f"{file} does not exist; run this from a checkout of the recipe") from None
    except tomllib.TOMLDecodeError as error:
        raise SourcesError(f"{file} is not valid TOML: {error}") from None
    profiles = [key for key in content if key != "prelude"]
    if name not in profiles:
        raise SourcesError(f"{file} has no profile {name!r}; it has {', '.join(profiles)}")
    try:
        prelude = Prelude(**content["prelude"])
    except (KeyError, TypeError) as error:
        raise SourcesError(f"{file}: [prelude] needs exactly file, after, before and line ({error})") from None
    return Profile(name, tuple(_pin(file, name, key, value) for key, value in content[name].items()), prelude)


def _pin(file: Path, profile: str, name: str, value: dict[str, Any]) -> Pin:
    where = f"{file}: [{profile}.{name}]"
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
