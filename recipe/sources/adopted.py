# SPDX-License-Identifier: Apache-2.0
"""Trees of the user's that stand in for pinned ones: `upstream/` shows them through links, and nothing in them moves.

Where a file of ours takes the place of one of theirs (the prelude line, a source patch, what a build writes),
`upstream/` has real directories on the way to it and links beside these.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recipe.sources.archive import COMPILED
from recipe.sources.cache import sha256_of
from recipe.sources.errors import SourcesError


@dataclass(frozen=True)
class Adopted:
    """A package that is taken from the user's directory `path`.

    line: the prelude line was put into that directory too.
    accepted: SHA-256 by path of the files that differ from the pinned ones and were accepted so, "" for missing ones.
    accept: whatever differs now is accepted.
    """

    package: str
    path: Path
    line: bool = False
    accepted: Mapping[str, str] = field(default_factory=dict)
    accept: bool = False


def remembered(manifest: Mapping[str, Any]) -> dict[str, Adopted]:
    """The adopted packages by name, as `Examined.entry` has written them into a manifest."""
    return {
        package: Adopted(package, Path(entry["path"]), bool(entry["line"]), dict(entry["accepted"]))
        for package, entry in manifest.get("adopted", {}).items()
    }


def listing(directory: Path) -> dict[str, Path]:
    """The files below a directory by their path in it, links followed, without what was compiled."""
    return dict(sorted(_files(directory, "", frozenset())))


def _files(directory: Path, below: str, above: frozenset[Path]) -> Iterator[tuple[str, Path]]:
    real = directory.resolve()
    if real in above:  # a link to a directory that it lies in
        return
    try:
        entries = list(os.scandir(directory))
    except OSError as error:
        raise SourcesError(f"{directory} cannot be read ({error.strerror}); make it readable") from None
    for entry in entries:
        if entry.is_dir():
            if entry.name != "__pycache__":
                yield from _files(Path(entry.path), f"{below}{entry.name}/", above | {real})
        elif entry.is_file() and not entry.name.endswith(COMPILED):
            yield f"{below}{entry.name}", Path(entry.path)


def hashed(adopted: Adopted) -> dict[str, str]:
    """SHA-256 of the files of an adopted package, by their path under `upstream/`."""
    try:
        return {f"{adopted.package}/{name}": sha256_of(file) for name, file in listing(adopted.path).items()}
    except OSError as error:
        raise SourcesError(f"{error.filename} cannot be read ({error.strerror}); make it readable") from None


def links(adopted: Adopted, own: Iterable[str]) -> dict[str, Path]:
    """Which links show the package under `upstream/`, by their path there, around the files `own`, which are ours."""
    below = {name for name in own if name.startswith(f"{adopted.package}/")}
    return dict(_around(adopted.path, adopted.package, below)) if below else {adopted.package: adopted.path}


def _around(directory: Path, name: str, own: set[str]) -> Iterator[tuple[str, Path]]:
    for entry in sorted(directory.iterdir()) if directory.is_dir() else ():
        child = f"{name}/{entry.name}"
        below = {file for file in own if file.startswith(f"{child}/")}
        if below:
            yield from _around(entry, child, below)
        elif child not in own and entry.name != "__pycache__":
            yield child, entry
