# SPDX-License-Identifier: Apache-2.0
"""The temporary directory of one run on one node: Ray's files and sockets, and what the run's processes put aside."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from recipe.runfile.paths import RunPaths

PREFIX = "grpo-"
# A socket's path has at most 107 bytes, and below this Ray puts up to 84: grpo-XXXXXXXX/ray/session_.../sockets/...
_LONGEST_PARENT = 23


@contextmanager
def run_temp() -> Iterator[Path]:
    """A new directory that only this user can enter; within it what `RunPaths` names. At the end it is removed.

    Ray gives its own directory to everybody (mode 0777): another user could plant links in it and replace sockets.
    """
    parent = "/tmp" if len(tempfile.gettempdir()) > _LONGEST_PARENT and Path("/tmp").is_dir() else None
    temp = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
    try:
        RunPaths(Path(), "", temp).scratch.mkdir()
        yield temp
    finally:
        shutil.rmtree(temp, ignore_errors=True)


def remove_temp(temp: Path) -> None:
    """Remove such a directory, wherever its name comes from: what `run_temp` did not make is left alone."""
    try:
        status = os.lstat(temp)
    except OSError:
        return
    ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
    if ours and temp.parent in (Path(tempfile.gettempdir()), Path("/tmp")) and temp.name.startswith(PREFIX):
        shutil.rmtree(temp, ignore_errors=True)
