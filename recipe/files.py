# SPDX-License-Identifier: Apache-2.0
"""Write files so that they appear whole or not at all, even on a full disk or after a loss of power."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_atomically(path: Path, content: str | bytes) -> None:
    """Replace `path` by `content`: written under a temporary name beside it, synced, renamed. One writer at a time.

    Raises:
        OSError: it could not be written; `path` is as it was.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = unfinished(path)
    # What `reserve` has put there is written over, which needs no new space.
    with _named(path):
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o644), "wb") as file:
            file.write(data)
            file.truncate()
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_directory(path.parent)


def reserve(path: Path, size: int) -> None:
    """Take the disk space that a later `write_atomically(path, ...)` of up to `size` bytes will need.

    Raises:
        OSError: there is not that much.
    """
    with _named(path), open(unfinished(path), "wb") as file:
        file.write(bytes(size))
        file.flush()
        os.fsync(file.fileno())


def release(path: Path) -> None:
    """Give back space that `reserve` took and that was not used."""
    unfinished(path).unlink(missing_ok=True)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Errors of writing say which file it was; the system names it only where it opens one."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def unfinished(path: Path) -> Path:
    """The temporary name under which a file is written."""
    return path.with_name(f".{path.name}.unfinished")


def sync_directory(directory: Path) -> None:
    """Sync the names in a directory to the disk, where its file system can."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    except OSError:
        pass  # not every file system can sync directories
    finally:
        os.close(handle)
