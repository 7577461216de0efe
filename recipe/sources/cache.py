# SPDX-License-Identifier: Apache-2.0
"""Where fetched archives and commits are kept; an entry is there whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from recipe.sources.errors import SourcesError, writing
from recipe.sources.pins import Pin

_PART = ".part-"


def cache_dir() -> Path:
    """Where downloads are kept: $RECIPE_CACHE_DIR, else deepseek-v3-grpo-npu/ in the user's cache directory."""
    own = os.environ.get("RECIPE_CACHE_DIR")
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(own) if own else base / "deepseek-v3-grpo-npu"


def place_of(pin: Pin) -> Path:
    """Where a pin is kept: its archive, or a bare repository that holds its commit."""
    return cache_dir() / "git" / f"{pin.commit}.git" if pin.git else cache_dir() / "sources" / pin.file


def sha256_of(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def cached(pin: Pin) -> Path | None:
    """A pin's place when it is there, None else; an archive with another SHA-256 than the pinned is an error."""
    place = place_of(pin)
    if pin.git:
        return place if place.is_dir() else None
    if not place.is_file():
        return None
    digest = sha256_of(place)
    if digest != pin.sha256:
        raise SourcesError(f"{place}: SHA-256 is {digest}, expected {pin.sha256}; delete the file and run sync again")
    return place


@contextlib.contextmanager
def filling(pin: Pin) -> Iterator[Path]:
    """Yield a path at which to make a pin's archive or repository; when the block ends, it moves to its place in the
    cache.

    One process at a time fills the cache; rests of killed ones are removed.  SourcesError where the disk cannot be
    written; what the block raises is passed on.
    """
    place = place_of(pin)
    directory = place.parent
    with writing(directory, "name another directory in RECIPE_CACHE_DIR"):
        directory.mkdir(parents=True, exist_ok=True)
        lock = (directory / ".lock").open("w")
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for leftover in directory.glob(f"{_PART}*"):
            _delete(leftover)
        part = directory / f"{_PART}{os.getpid()}-{place.name}"
        try:
            yield part
            if not part.exists():
                return
            with writing(place, "name another directory in RECIPE_CACHE_DIR"):
                if place.is_dir():
                    shutil.rmtree(place)
                part.replace(place)
        finally:
            _delete(part)


def _delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
