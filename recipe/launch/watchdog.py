# SPDX-License-Identifier: Apache-2.0
"""Ends a run whose launcher is gone: `python -m recipe.launch.watchdog RUN_ID TEMP`, started by the launcher.

The launcher holds the writing end of the pipe that is this process's standard input. When it ends, in whatever way
(`kill -9` too), the pipe closes, and what is left of the run is ended. After an orderly end nothing is left.
"""

from __future__ import annotations

import shutil
import signal
import sys

from recipe.launch.processes import end_all


def main() -> int:
    run_id, temp = sys.argv[1:3]
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.buffer.read()
    end_all(run_id)
    shutil.rmtree(temp, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
