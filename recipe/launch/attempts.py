# SPDX-License-Identifier: Apache-2.0
"""What an earlier attempt left: put aside before the next one writes, so that nothing of it is lost or counted twice.

The launcher may be killed between any two of these steps, and is then started again, with the same options or without.
Therefore checkpoints of later steps go first: from then on the plain command too goes on from where this one meant to.
Every other step can be done again.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection
from pathlib import Path

from recipe.checkpoints import TRACKER, Checkpoint
from recipe.files import sync_directory, write_atomically
from recipe.recorder import NODES
from recipe.report.marks import FILE as MARKS
from recipe.runfile.paths import COMMAND, RESULT

ATTEMPTS = "attempts"
# Below the directory of checkpoints, as a rename needs one file system.
ASIDE = "aside"
# A directory is renamed to such a name before it is deleted, so that a half deleted checkpoint is never looked at.
REMOVED = ".removed-"


def next_attempt(run_dir: Path, checkpoints: Path) -> int:
    """The first number above those of all earlier attempts."""
    below = (run_dir / ATTEMPTS, checkpoints / ASIDE)
    numbers = [int(path.name) for part in below for path in part.glob("*") if path.name.isdecimal()]
    return 1 + max(numbers, default=0)


def put_aside(run_dir: Path, checkpoints: Path, step: int, later: Collection[Checkpoint]) -> None:
    """Make room for an attempt that goes on after `step`.

    Logs, outcome and run file go to `attempts/NUMBER/`. Metrics, marks and validation samples of later steps are taken
    out, and are kept there too. Checkpoints of later steps go to `aside/NUMBER/` beside those that stay; rests of
    saves that were cut short are marked for removal.

    Raises:
        OSError: some file cannot be moved or written.
    """
    number = next_attempt(run_dir, checkpoints)
    _put_checkpoints_aside(checkpoints, checkpoints / ASIDE / str(number), later)
    aside = run_dir / ATTEMPTS / str(number)
    aside.mkdir(parents=True)
    for name in ("metrics.jsonl", MARKS):
        _cut(run_dir / name, aside / name, step)
    for path in (run_dir / "validation").glob("*.jsonl"):
        if path.stem.isdecimal() and int(path.stem) > step:
            (aside / "validation").mkdir(exist_ok=True)
            path.rename(aside / "validation" / path.name)
    for name in ("logs", COMMAND, RESULT, "run.toml"):
        if (run_dir / name).exists():
            (run_dir / name).rename(aside / name)
    (run_dir / "logs").mkdir()
    for logs in (run_dir / NODES).glob("*/logs"):
        (aside / NODES / logs.parent.name).mkdir(parents=True)
        logs.rename(aside / NODES / logs.parent.name / "logs")


def _put_checkpoints_aside(checkpoints: Path, aside: Path, later: Collection[Checkpoint]) -> None:
    for checkpoint in later:
        if checkpoint.unfinished:
            mark_removed(checkpoint.path)
        else:
            aside.mkdir(parents=True, exist_ok=True)
            checkpoint.path.rename(aside / checkpoint.path.name)
    # verl reads this file even when it is given a path, fails where it holds no number, and writes it anew with its
    # next save.
    (checkpoints / TRACKER).unlink(missing_ok=True)
    sync_directory(checkpoints)


def mark_removed(path: Path) -> Path:
    """Give a directory a name under which it is no checkpoint; returns the new path."""
    number = 1
    while (target := path.with_name(f"{REMOVED}{path.name}.{number}")).exists():
        number += 1
    return path.rename(target)


def _cut(path: Path, backup: Path, step: int) -> None:
    """Keep the lines until `step` in a file of JSON lines, and a copy of all of it as `backup`."""
    if not path.is_file():
        return
    shutil.copyfile(path, backup)
    lines = path.read_bytes().split(b"\n")
    kept = b"".join(line + b"\n" for line in lines if _is_until(line, step))
    write_atomically(path, kept)


def _is_until(line: bytes, step: int) -> bool:
    try:
        return int(json.loads(line)["step"]) <= step
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError):
        return False  # a line torn by the end of the process


def begin_anew(run_dir: Path, checkpoints: Path) -> Path:
    """Keep the directories of an earlier run under other names, and make a new one; returns where the earlier is."""
    # The run's directory comes last: as long as it is there, the next launch sees that there was an earlier run.
    moved = [run_dir] if checkpoints.is_relative_to(run_dir) else [checkpoints, run_dir]
    number = next(n for n in range(1, 10**6) if not any(_numbered(path, n).exists() for path in moved))
    for path in moved:
        if path.exists():
            os.rename(path, _numbered(path, number))
    (run_dir / "logs").mkdir(parents=True)
    return _numbered(run_dir, number)


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")
