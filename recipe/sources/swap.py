# SPDX-License-Identifier: Apache-2.0
"""Put a new tree in the place of the old one, so that at every moment one of the two is there, whole.

`scratch` is a directory on the same file system. In it, `upstream-new` is a tree that is being written or deleted, and
`upstream-other` the one that changes places with `upstream/`. At whatever moment a sync is killed, `recover` completes
or undoes it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from recipe.sources.errors import SourcesError, writing
from recipe.sources.index import Say

MANIFEST = "MANIFEST.json"
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def read_manifest(tree: Path) -> dict[str, Any] | None:
    """The manifest that a sync has left in `tree`, None when there is none or it is damaged."""
    try:
        content = json.loads((tree / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) and isinstance(content.get("files"), dict) else None


@contextlib.contextmanager
def locked(scratch: Path) -> Iterator[None]:
    """Hold the lock of this recipe's `upstream/`; waits for another sync to end."""
    with writing(scratch):
        scratch.mkdir(parents=True, exist_ok=True)
        handle = (scratch / "sync.lock").open("w")
    with handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def recover(tree: Path, scratch: Path, say: Say) -> None:
    """Clear up after a sync that was killed."""
    if tree.is_symlink():
        raise SourcesError(f"{tree} is a link, expected a directory that sync may replace; remove the link")
    old = scratch / "upstream-other"
    with writing(tree):
        shutil.rmtree(scratch / "upstream-new", ignore_errors=True)
        if old.exists() and not tree.exists():  # killed between the two renames
            old.rename(tree)
        _retire(old, tree, say)


def put(new: Path, tree: Path, say: Say) -> None:
    """Make the whole tree `new` (that is `upstream-new`) the one at `tree`, and clear the old one away."""
    old = new.with_name("upstream-other")
    with writing(tree):
        if not tree.exists():
            new.rename(tree)
            return
        new.rename(old)
        if not _exchange(old, tree):
            old.rename(new)
            tree.rename(old)
            try:
                new.rename(tree)
            except OSError:
                old.rename(tree)
                raise
        _retire(old, tree, say)


def _exchange(first: Path, second: Path) -> bool:
    """Swap two directories in one step; False where the system or the file system cannot."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError):
        return False
    if renameat2(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        return False
    raise OSError(code, os.strerror(code), str(second))


def _retire(old: Path, tree: Path, say: Say) -> None:
    """Delete the tree `old`; what no sync has brought is the user's and moves to `tree`, or is set aside."""
    if not old.is_dir():
        return
    manifest = read_manifest(old)
    brought = {name.partition("/")[0] for name in manifest["files"]} if manifest else set()
    for entry in sorted(old.iterdir()):
        if entry.name in brought or entry.name == MANIFEST:
            continue
        place = tree / entry.name
        if os.path.lexists(place):
            place = _set_aside(old.parent, entry.name)
            say(f"{tree.name}/{entry.name} was not brought by sync and is in the way; moved to {place}")
        entry.rename(place)
    # A half deleted tree has no manifest that tells which entries are the user's; under this name nobody asks for it.
    discarded = old.with_name("upstream-new")
    old.rename(discarded)
    shutil.rmtree(discarded)


def _set_aside(scratch: Path, name: str) -> Path:
    directory = scratch / "set-aside"
    directory.mkdir(exist_ok=True)
    return next(
        place
        for number in range(1, 1 << 20)
        if not os.path.lexists(place := directory / (name if number == 1 else f"{name}-{number}"))
    )
