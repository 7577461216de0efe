# SPDX-License-Identifier: Apache-2.0
"""The cause of a failed run, in one line, from the driver's log."""

from __future__ import annotations

import re
from pathlib import Path

from recipe.launch.progress import plain

# The last line of a Python traceback: a dotted exception class at the start of the line, then its message.
_EXCEPTION = re.compile(
    r"^(?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Exit|Interrupt|Died|Crashed)\w*(?:\(\w+\))?(?::.*)?$"
)
# Exceptions that only carry another one, or follow from the end of a process: the cause stands elsewhere if at all.
_CARRIERS = ("RayTaskError", "TaskRunner", "SystemExit", "KeyboardInterrupt", "ConfigCompositionException")
_DEATHS = ("ActorDiedError", "ActorUnavailableError", "WorkerCrashedError", "DistBackendError")
_DETAIL = re.compile(r"\s+(class_name|pid): (\S+)")
_TAIL_BYTES = 4 * 2**20
_LONGEST = 400


def cause(log: Path) -> str | None:
    """What went wrong: the last exception in the log that is not merely carrying another; None when there is none."""
    if not log.is_file():
        return None
    with open(log, "rb") as file:
        file.seek(0, 2)
        file.seek(max(0, file.tell() - _TAIL_BYTES))
        lines = [plain(line) for line in file.read().decode("utf-8", "replace").splitlines()]
    found = [(number, line) for number, line in enumerate(lines) if _EXCEPTION.match(line)]
    own = [(number, line) for number, line in found if not any(name in line.split(":")[0] for name in _CARRIERS)]
    for candidates in ([item for item in own if not any(name in item[1] for name in _DEATHS)], own, found):
        if candidates:
            return _whole(lines, candidates[-1][0])
    return None


def _whole(lines: list[str], number: int) -> str:
    """The exception's line; when its message goes on, the following lines up to a blank one."""
    text = lines[number]
    if "ActorDiedError" in text:
        matches = [_DETAIL.match(line) for line in lines[number + 1 : number + 8]]
        details = {match[1]: match[2] for match in matches if match}
        actor = details.get("class_name", "an actor").rpartition(".")[2]
        return f"{actor} (pid {details.get('pid', 'unknown')}) died: it was killed, or the machine ran out of memory"
    for line in lines[number + 1 : number + 6]:
        if not line.strip() or _EXCEPTION.match(line) or line.startswith(("Traceback", "During handling", "Set the")):
            break
        text += " " + line.strip()
    text = re.sub(r"\s+", " ", text)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."
