# SPDX-License-Identifier: Apache-2.0
"""Event lines of one run: `record("memory", phase="released", allocated=...)`.

Every process of a run appends JSON lines to its own file, `$RECIPE_RUN_DIR/events/<pid>.jsonl`, so that no two
processes write to one file. Without `RECIPE_RUN_DIR` in the environment a call does nothing, which lets patches and
tests call it unconditionally. Standard library only: it is imported in every worker, before anything heavy.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import time
from pathlib import Path
from typing import Any

EVENTS = "events"
NODES = "nodes"
# The largest time, in seconds since the epoch; anything larger (infinity, a number of a thousand digits) is no time.
_END_OF_TIME = 1e12


def record(kind: str, **fields: Any) -> None:
    """Append one event of this process.

    Args:
        kind: what the event is about, e.g. "memory" or "processes".
        **fields: JSON values; numbers of other types (NumPy or torch scalars) are written as floats, anything else as
            its string. Byte counts are plain integers in bytes, durations seconds.

    The line holds also `time` (seconds since the epoch), `pid`, and `rank` (the integer in `RANK`, or null). It is
    written by a single `write` on a file opened for appending, so a process that dies leaves whole lines.
    """
    run_dir = os.environ.get("RECIPE_RUN_DIR")
    if not run_dir:
        return
    rank = os.environ.get("RANK", "")
    event = {
        "time": time.time(),
        "pid": os.getpid(),
        "rank": int(rank) if rank.isdigit() else None,
        "kind": kind,
        **fields,
    }
    with contextlib.suppress(OSError):  # a full disk must not end the run: an event only describes it
        append_line(Path(run_dir) / EVENTS / f"{os.getpid()}.jsonl", event)


def append_line(path: Path, value: dict[str, Any]) -> None:
    """Append `value` to `path` as one JSON line by one `write`, making the directory when it is missing.

    Raises:
        OSError: it could not be written. A part of a line is taken back, since no other process writes to the file.
    """
    data = (json.dumps(value, default=_plain) + "\n").encode()
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    try:
        fd = os.open(path, flags, 0o644)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(path, flags, 0o644)
    try:
        written = os.write(fd, data)
        if written < len(data):
            os.ftruncate(fd, os.fstat(fd).st_size - written)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    finally:
        os.close(fd)


def _plain(value: Any) -> float | str:
    """A JSON value for what `json` does not know: a scalar tensor or array element as a float, else its string."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return str(value)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The JSON objects of a JSON-lines file; a missing file is empty, and a torn or foreign line is left out.

    A process killed in the middle of a write can leave half a line; the rest of the file is still worth reading.
    """
    if not path.is_file():
        return []
    values = []
    with open(path, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            value = read_object(line)
            if value is not None:
                values.append(value)
    return values


def read_object(line: str) -> dict[str, Any] | None:
    """The JSON object of one line; None for anything else, such as a torn line or endless nesting."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def node_dirs(run_dir: Path) -> list[Path]:
    """The directories with event lines of a run: its own, and `nodes/NAME/` for each other node."""
    return [run_dir, *sorted(path for path in (run_dir / NODES).glob("*") if path.is_dir())]


def read_events(run_dir: Path) -> list[dict[str, Any]]:
    """All events of a run, of all its processes on all its nodes, in order of time."""
    paths = [path for node in node_dirs(run_dir) for path in sorted((node / EVENTS).glob("*.jsonl"))]
    events = [event for path in paths for event in read_lines(path)]
    return sorted(events, key=_time)


def _time(event: dict[str, Any]) -> float:
    value = event.get("time")
    return float(value) if isinstance(value, (int, float)) and abs(value) < _END_OF_TIME else 0.0
