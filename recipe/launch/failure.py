# SPDX-License-Identifier: Apache-2.0
"""The cause of a failed run in one line: what the driver has recorded of it, else the last exception that it printed.

The driver's log also holds what Ray's workers print, and that may be anything a model has written: an answer that looks
like an exception is none. The exception that has ended the driver is recorded as such (`logs/failure.json`), and where
there is no record, since the driver failed before it could make one, only its own lines count.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recipe.files import release, reserve, write_atomically
from recipe.runfile.environment import RUN_ID
from recipe.runfile.paths import RunPaths
from recipe.text import uncoloured

# The last line of a Python traceback: a dotted exception class at the start of the line, then its message.
_EXCEPTION = re.compile(
    r"^(?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Exit|Interrupt|Died|Crashed)\w*(?:\(\w+\))?(?::.*)?$"
)
# Before what another process has printed Ray puts `(Actor pid=...)`, with colours or without.
_OF_ANOTHER = re.compile(r"^\([^()]*pid=\d+[^()]*\)")
# Exceptions that only carry another one, or only say that a process has ended: the cause is in another line, if any.
_CARRIERS = ("RayTaskError", "TaskRunner", "SystemExit", "KeyboardInterrupt", "ConfigCompositionException")
_DEATHS = ("ActorDiedError", "ActorUnavailableError", "WorkerCrashedError", "DistBackendError")
_DETAIL = re.compile(r"\s+(class_name|pid): (\S+)")
_TAIL_BYTES = 4 * 2**20
_LONGEST = 400
# Of a longer message beginning and end are recorded, this many characters of each.
_MESSAGE_PART = 2048
_DEEPEST = 32
_RECORD_BYTES = 2**16


def expect_record(paths: RunPaths) -> None:
    """Remove an earlier record, and take the space for one: a full disk is a cause that must be told, too."""
    paths.failure.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        reserve(paths.failure, _RECORD_BYTES)


def end_of_records(paths: RunPaths) -> None:
    """Release the reserved space where no failure was recorded."""
    release(paths.failure)


def record_failure(error: BaseException, environment: Mapping[str, str] = os.environ) -> None:
    """Record what has ended this process, the driver of the run that the environment names; otherwise do nothing.

    Args:
        error: as it was raised; what Ray has carried from another process is taken out of its wrappings.
        environment: of the process.
    """
    run_dir, run_id = environment.get("RECIPE_RUN_DIR"), environment.get(RUN_ID)
    if not run_dir or not run_id:
        return
    true = _unwrapped(error)
    message = str(true)
    if len(message) > 2 * _MESSAGE_PART:
        message = f"{message[:_MESSAGE_PART]} ... {message[-_MESSAGE_PART:]}"
    value = {"run_id": run_id, "type": type(true).__name__, "message": message}
    with contextlib.suppress(OSError):
        write_atomically(RunPaths(Path(run_dir), run_id, Path()).failure, json.dumps(value) + "\n")


def _unwrapped(error: BaseException) -> BaseException:
    """The exception that was raised first: Ray wraps it once more in each process that it goes through."""
    for _ in range(_DEEPEST):
        carried = any(base.__name__ == "RayTaskError" for base in type(error).__mro__)
        inner = getattr(error, "cause", None)
        if not carried or not isinstance(inner, BaseException):
            break
        error = inner
    return error


def cause(paths: RunPaths) -> str | None:
    """What the driver of this run has recorded; None when it has recorded nothing."""
    try:
        value: Any = json.loads(paths.failure.read_bytes())
        kind, message = str(value["type"]), str(value["message"])
        ours = value["run_id"] == paths.run_id
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
    if not ours:
        return None
    if kind == "ActorDiedError":
        lines = message.split("\n")
        if death := _death(lines):
            return death
        # The actor failed in its constructor, whose traceback follows.
        raised = [line for line in lines if _EXCEPTION.match(line)]
        return _line(raised[-1] if raised else message)
    return _line(f"{kind}: {message}" if message.strip() else kind)


def cause_in_log(log: Path) -> str | None:
    """The last exception that the driver itself has printed and that is not merely carrying another; else None."""
    try:
        with open(log, "rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - _TAIL_BYTES))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return None
    # Split at "\n" only, as Ray does: a worker's text may be full of other line ends, and would seem to begin lines.
    lines = [uncoloured(line).rstrip() for line in text.split("\n")]
    lines = [line for line in lines if not _OF_ANOTHER.match(line)]
    exceptions = [(number, line) for number, line in enumerate(lines) if _EXCEPTION.match(line)]
    own = [(number, line) for number, line in exceptions if not any(name in line.split(":")[0] for name in _CARRIERS)]
    for candidates in ([item for item in own if not any(name in item[1] for name in _DEATHS)], own, exceptions):
        if candidates:
            return _whole(lines, candidates[-1][0])
    return None


def _whole(lines: list[str], number: int) -> str:
    """The exception's line; when its message goes on, the following lines up to a blank one."""
    text = lines[number]
    if "ActorDiedError" in text and (death := _death(lines[number : number + 8])):
        return death
    for line in lines[number + 1 : number + 6]:
        if not line.strip() or _EXCEPTION.match(line) or line.startswith(("Traceback", "During handling", "Set the")):
            break
        text += " " + line.strip()
    return _line(text)


def _death(lines: list[str]) -> str | None:
    """Which actor has died, from the lines that Ray prints below its ActorDiedError."""
    details = {match[1]: match[2] for line in lines[1:8] if (match := _DETAIL.match(line))}
    if not details:
        return None
    actor = details.get("class_name", "an actor").rpartition(".")[2]
    return f"{actor} (pid {details.get('pid', 'unknown')}) died: it was killed, or the machine ran out of memory"


def _line(text: str) -> str:
    text = "".join(letter if letter.isprintable() else " " for letter in text)
    text = re.sub(r"\s+", " ", text).strip()
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."
