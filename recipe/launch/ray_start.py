# SPDX-License-Identifier: Apache-2.0
"""Another try where Ray gave its own start too little time: a loaded host, or a disk on which many start at once."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from recipe.launch.processes import end_all
from recipe.runfile.errors import LaunchError

# Ray's error when a raylet is not registered 30 s after its start; that limit cannot be set (ray/_private/node.py).
TIMED_OUT = "The current node timed out during startup"
TRIES = 3


@dataclass(frozen=True)
class Retry:
    """What is needed to repeat a start that Ray's own limit has ended.

    `clean` removes what is left of the failed start; `end` is when to give up (time.monotonic); `say` takes a line
    about each try.
    """

    end: float
    clean: Callable[[], None]
    say: Callable[[str], None]


def make_retry(run_id: str, temp: Path, limit_s: float, say: Callable[[str], None]) -> Retry:
    """Retries for `limit_s` seconds, of a Ray whose processes carry the mark `run_id` and whose files are in `temp`."""

    def clean() -> None:
        # Short enough that the launchers of other nodes do not count this one as gone.
        end_all(run_id, patience_s=2.0, limit_s=15.0)
        for path in temp.iterdir() if temp.is_dir() else ():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

    return Retry(time.monotonic() + limit_s, clean, say)


def patiently(run: Callable[[], None], log: Path, say: Callable[[str], None]) -> None:
    """Run a driver that starts a Ray of its own, `TRIES` times at most where Ray's own limit ends that start.

    Args:
        run: runs it to its end, and raises LaunchError where it fails.
        log: the driver's output, new each time.
        say: takes a line about each further try.

    Raises:
        LaunchError: what `run` raises, for another reason or the last time.
    """
    for number in range(2, TRIES + 2):
        try:
            return run()
        except LaunchError:
            if number > TRIES or not _driver_was_too_slow(log):
                raise
            say(f"Ray's own limit of 30 s has ended its start; starting the trainer again (try {number} of {TRIES})")


def _driver_was_too_slow(log: Path) -> bool:
    # At the beginning of a line: what another process prints has Ray's prefix there.
    try:
        return re.search(f"^Exception: {TIMED_OUT}", log.read_text("utf-8", "replace"), re.MULTILINE) is not None
    except OSError:
        return False
