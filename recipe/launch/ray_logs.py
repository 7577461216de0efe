# SPDX-License-Identifier: Apache-2.0
"""Ray's own logs, from its temporary directory into that of the run."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from pathlib import Path
from typing import BinaryIO

from recipe.runfile.paths import RunPaths

_SUFFIXES = (".out", ".err", ".log")


def keep_ray_logs(paths: RunPaths) -> None:
    """Copy Ray's logs (workers' output, raylet) beside the driver's log, without its event and metrics files.

    What cannot be copied (no space is left) is left out: the run has ended, and how is told all the same.
    """
    with contextlib.suppress(OSError):
        # `session_latest` is a link to the newest of these; no link is followed here.
        sessions = [path for path in sorted(paths.ray_temp.glob("session_2*")) if _is_directory(path)]
        if not sessions or not _is_directory(sessions[-1] / "logs"):
            return
        target = paths.run_dir / "logs" / "ray"
        target.mkdir(parents=True, exist_ok=True)
        for path in sorted((sessions[-1] / "logs").iterdir()):
            if path.suffix in _SUFFIXES:
                with contextlib.suppress(OSError):
                    _copy(path, target / path.name)


def open_own(path: Path) -> BinaryIO:
    """Open for reading a plain file that belongs to the caller; a link is not followed, and no pipe is waited for.

    Raises:
        OSError: it is something else.
    """
    file = open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb")  # noqa: SIM115
    status = os.fstat(file.fileno())
    if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
        file.close()
        raise PermissionError(f"{path} is no plain file of this user")
    return file


def _is_directory(path: Path) -> bool:
    """Whether it is one itself, and not a link to one."""
    return os.path.lexists(path) and stat.S_ISDIR(os.lstat(path).st_mode)


def _copy(source: Path, target: Path) -> None:
    with open_own(source) as read:
        if os.fstat(read.fileno()).st_size:
            with open(target, "wb") as write:
                shutil.copyfileobj(read, write)
