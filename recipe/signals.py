# SPDX-License-Identifier: Apache-2.0
"""What Ctrl-C (SIGINT) and SIGTERM do while a command starts, and what a child gets when its parent ends.

What was ignored when the process began stays ignored: by `nohup`, or by a shell in its background jobs.
"""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Mapping
from types import FrameType
from typing import Any

_PR_SET_PDEATHSIG = 1
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def quit_on_stop_signals() -> None:
    """Make each stop signal end the process at once, with one line, for the time in which it has nothing to clean up.

    An exception would not do: raised in the middle of an import it may be printed and forgotten.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        try:
            os.write(2, f"error: stopped by {signal.Signals(number).name}\n".encode())
        finally:
            os._exit(128 + number)

    handle(dict.fromkeys(STOP_SIGNALS, stop))


def default_on_stop_signals() -> None:
    """Let each stop signal do what Python does with it."""
    handle({signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL})


def handle(handlers: Mapping[signal.Signals, Any]) -> None:
    """Set the handlers of the signals that are not ignored."""
    for number, handler in handlers.items():
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, handler)


def die_with_parent() -> None:
    """For a child, before its program starts: it is killed when its parent ends, in whatever way (Linux)."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
