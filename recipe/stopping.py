# SPDX-License-Identifier: Apache-2.0
"""How a run is stopped: by Ctrl-C (SIGINT) and SIGTERM, and not by a terminal that is closed (SIGHUP)."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

from recipe.runfile.errors import Interrupted
from recipe.signals import STOP_SIGNALS, handle

_asked: int | None = None


def raise_on_stop_signals() -> None:
    """Make each stop signal raise `Interrupted` in the main thread; a closed terminal does nothing.

    Where other code catches that exception, `StopSignals` still knows that a stop was asked for.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        global _asked
        _asked = _asked or number
        raise Interrupted(number)

    handle(dict.fromkeys(STOP_SIGNALS, stop))
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # for the children, too


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
