# SPDX-License-Identifier: Apache-2.0
"""The errors of this room, each one line that says what was found, what was expected and what to type."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)


class SourcesError(RuntimeError):
    """Sources could not be brought or are not what they should be."""

    exit_code = 1


class Unreachable(SourcesError):
    """What is pinned is not in the cache, and where it comes from cannot be reached."""


class UsageError(SourcesError):
    """What was asked for makes no sense: an unknown profile or name, options that do not go together."""

    exit_code = 2


@contextlib.contextmanager
def writing(place: Path, advice: str = "") -> Iterator[None]:
    """Say in one line what keeps us from writing `place`; `advice` is what to do about a place that is read-only."""
    try:
        yield
    except OSError as error:
        if error.errno in DISK_FULL:
            raise SourcesError(f"no room on the disk of {place}: free some 100 MB and run sync again") from None
        if error.errno in READ_ONLY:
            advice = advice or "make it writable, or work in a copy of the recipe that is"
            raise SourcesError(f"cannot write {place} ({error.strerror}); {advice}, and run sync again") from None
        raise SourcesError(f"cannot write {place}: {error}") from None
