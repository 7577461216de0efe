# SPDX-License-Identifier: Apache-2.0
"""The files that a job reads, as they were when it was planned: a job over input that changes meanwhile is no job."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from recipe.weights.errors import DamagedInputError, WeightsError


@dataclass(frozen=True, slots=True)
class Mark:
    """What stands for the contents of a file: its size in bytes, the time of its last change, its inode."""

    size: int
    mtime_ns: int
    inode: int


Marks = Mapping[Path, Mark]


def mark_of(file: Path) -> Mark:
    """The mark of a file (of what a link leads to). Raises WeightsError where there is none."""
    try:
        status = os.stat(file)
    except OSError as error:
        raise WeightsError(f"{file}: cannot be read ({error.strerror}); is it there?") from error
    return Mark(status.st_size, status.st_mtime_ns, status.st_ino)


def check_unchanged(marks: Marks, files: Iterable[Path] | None = None) -> None:
    """Require that these files, or all that have marks, are those that were marked.

    Raises DamagedInputError for the first that is not.
    """
    for file in marks if files is None else files:
        try:
            now = mark_of(file)
        except WeightsError as error:
            raise DamagedInputError(f"{file}: went away while it was read", file) from error
        if now != marks[file]:
            raise DamagedInputError(f"{file}: changed while it was read", file)
