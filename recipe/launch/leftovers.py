# SPDX-License-Identifier: Apache-2.0
"""What a launch has running, noted beside the run's directory, so that the next launch of that name can end it.

A launcher that is killed is survived by its watchdog, which ends the run. When both are killed, this note is what
remains. It is removed at an orderly end.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from recipe.files import write_atomically
from recipe.launch.processes import end_all, marked
from recipe.launch.temporary import remove_temp
from recipe.runfile.errors import LaunchError
from recipe.runfile.paths import RunPaths

WATCHDOG = "recipe.launch.watchdog"


@contextmanager
def noted(paths: RunPaths) -> Iterator[None]:
    """While the block runs there is a note of what this launch has running."""
    _note(paths)
    try:
        yield
    finally:
        if not marked(paths.run_id):
            _file(paths.run_dir).unlink(missing_ok=True)


def _note(paths: RunPaths) -> None:
    launcher = psutil.Process()
    value = {
        "host": socket.gethostname(),
        "launcher": {"pid": launcher.pid, "created": launcher.create_time()},
        "run_id": paths.run_id,
        "temp": str(paths.temp),
    }
    write_atomically(_file(paths.run_dir), json.dumps(value) + "\n")


def end_former(run_dir: Path, say: Callable[[str], None]) -> None:
    """End what an earlier launch in `run_dir` has left running on this machine, and remove its temporary directory.

    Raises:
        LaunchError: that launch is at work, or something of it could not be ended.
    """
    former = _read(_file(run_dir))
    if former is None:
        return
    run_id, temp, launcher = former["run_id"], Path(former["temp"]), former["launcher"]
    if former["host"] != socket.gethostname():
        say(
            f"warning: the last launch of this run was on {former['host']} and did not end in order; should processes "
            f"of it go on there, launch it there, or end them: RECIPE_RUN_ID={run_id} is in their environment"
        )
        return
    if _is(launcher["pid"], launcher["created"]):
        raise LaunchError(f"another launcher (pid {launcher['pid']}) is at work in {run_dir}; stop it first")
    for watchdog in _watchdogs(run_id):
        watchdog.kill()
    running = marked(run_id)
    if running:
        count = "one process" if len(running) == 1 else f"{len(running)} processes"
        say(f"the last launch of this run was killed: ending what it has left running ({count})")
    remaining = end_all(run_id)
    if remaining:
        pids = ", ".join(str(process.pid) for process in remaining)
        raise LaunchError(f"processes of the last launch of this run could not be ended: {pids}")
    remove_temp(temp)
    _file(run_dir).unlink(missing_ok=True)


def _file(run_dir: Path) -> Path:
    return run_dir.with_name(f".{run_dir.name}.going")


def _read(file: Path) -> dict[str, Any] | None:
    """The note; None when there is none, or when it is of another form."""
    try:
        value = json.loads(file.read_text(encoding="utf-8", errors="replace"))
        launcher = value["launcher"]
        texts = all(isinstance(value[key], str) and value[key] for key in ("host", "run_id", "temp"))
        numbers = isinstance(launcher["pid"], int) and isinstance(launcher["created"], float)
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
    return value if texts and numbers else None


def _is(pid: int, created: float) -> bool:
    try:
        return abs(psutil.Process(pid).create_time() - created) < 0.02
    except (psutil.Error, ValueError, OverflowError):
        return False


def _watchdogs(run_id: str) -> list[psutil.Process]:
    """The run's watchdogs that still exist, for instance halted ones; their command lines name the run."""
    watchdogs = []
    for process in psutil.process_iter():
        try:
            command = process.cmdline()
        except (psutil.Error, OSError):
            continue
        if command[1:4] == ["-m", WATCHDOG, run_id]:
            watchdogs.append(process)
    return watchdogs
