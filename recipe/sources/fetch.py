# SPDX-License-Identifier: Apache-2.0
"""Bring a pin into the cache, from the network or from a place that the user names, and read its files from there."""

from __future__ import annotations

import shutil
from pathlib import Path

from recipe.sources import archive, cache, git, index
from recipe.sources.archive import Files
from recipe.sources.errors import SourcesError, writing
from recipe.sources.index import Say
from recipe.sources.pins import Pin


def bring(pin: Pin, say: Say) -> Path:
    """The verified place of a pin in the cache; fetches it when it is not there."""
    place = cache.cached(pin)
    if place is not None:
        return place
    with cache.filling(pin) as part:
        place = cache.cached(pin)  # another process may have filled it while we waited
        if place is not None:
            return place
        say(f"{pin.name} {pin.version}: fetching {f'commit {pin.commit[:12]}' if pin.git else pin.file}")
        if pin.git:
            git.fetch(pin, part)
        else:
            index.download(pin, part)
            _check(pin, part, "the package index", "nothing was unpacked: the index serves another file")
    return cache.place_of(pin)


def bring_from(pin: Pin, source: Path) -> None:
    """Take a pin from a local place into the cache: a git checkout or bare repository, or the archive itself.

    source: for pins from an index the file, whatever its name, or a directory that holds it under its own.
    """
    if pin.git:
        with cache.filling(pin) as part:
            git.copy(pin, source, part)
        return
    file = source / pin.file if source.is_dir() else source
    if not file.is_file():
        kind = "a git repository" if git.git_dir_of(source) else "no such file" if source.is_dir() else "nothing"
        raise SourcesError(
            f"--from {pin.name}={source}: found {kind}, expected {pin.file} or a directory that holds it; "
            f"the package index has it among the files of {pin.name} {pin.version}"
        )
    with cache.filling(pin) as part:
        with writing(part.parent, "name another directory in RECIPE_CACHE_DIR"):
            shutil.copyfile(file, part)
        _check(pin, part, str(file), "it is another file than the pinned one, or not whole")


def _check(pin: Pin, file: Path, where: str, verdict: str) -> None:
    digest = cache.sha256_of(file)
    if digest != pin.sha256:
        raise SourcesError(f"{pin.file} from {where} has SHA-256 {digest}, upstreams.toml pins {pin.sha256}; {verdict}")


def read(pin: Pin, place: Path) -> Files:
    """A pin's files, by their path under `upstream/`, checked to be the named project and version."""
    if pin.git:
        files = git.read(pin, place)
    else:
        files = archive.read_wheel(place, pin) if pin.is_wheel else archive.read_sdist(place, pin)
    archive.check_version(files, pin)
    return files
