# SPDX-License-Identifier: Apache-2.0
"""Which signals stop a run, and what they do in each part of it.

Ctrl-C (SIGINT) and SIGTERM stop a run. A terminal that is closed (SIGHUP) does not, since a run lasts for days. What
was ignored when the process began stays ignored: `nohup`, and a shell's background jobs.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Mapping
from types import FrameType
from typing import Any

from recipe.launch.errors import LaunchError

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_asked: int | None = None


class Interrupted(LaunchError):
    """The launcher was asked to stop; the exit code is the shell's for that signal."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.exit_code = 128 + number


def quit_on_stop_signals() -> None:
    """Make each stop signal end the process at once, with one line: for the time in which there is nothing to end.

    An exception would not do: raised in the middle of an import it may be printed and forgotten.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        text = f"error: {Interrupted(number)}\n".encode()
        try:
            os.write(2, text)
        finally:
            os._exit(128 + number)

    _handle(dict.fromkeys(STOP_SIGNALS, stop))


def default_on_stop_signals() -> None:
    """Let each stop signal do what Python does with it."""
    _handle({signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL})


def raise_on_stop_signals() -> None:
    """Make each stop signal raise `Interrupted` in the main thread; a closed terminal does nothing.

    Should that be caught by what does not know it, `StopSignals` still knows that a stop was asked for.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        global _asked
        _asked = _asked or number
        raise Interrupted(number)

    _handle(dict.fromkeys(STOP_SIGNALS, stop))
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # for the children, too


def _handle(handlers: Mapping[signal.Signals, Any]) -> None:
    for number, handler in handlers.items():
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, handler)


class StopSignals:
    """Within the block stop signals only set `number`, so that the end is always an orderly one."""

    def __init__(self) -> None:
        self.number: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            self.number = _asked
            heard = [number for number in STOP_SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
            self._before = {number: signal.signal(number, self._note) for number in heard}
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.number = self.number or number

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
