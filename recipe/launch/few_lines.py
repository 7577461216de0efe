# SPDX-License-Identifier: Apache-2.0
"""Limits log lines that a stranger can cause without end: the first ones are printed, the others counted."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class FewLines:
    """Prints `first` lines as they come, then at most one every `pause_s` seconds, with a count of those left out.

    For several threads at a time.
    """

    def __init__(self, say: Callable[[str], None], first: int = 20, pause_s: float = 30.0) -> None:
        self._say, self._left, self._pause_s = say, first, pause_s
        self._lock = threading.Lock()
        self._skipped = 0
        self._last = ""
        self._said = time.monotonic()

    def add(self, text: str) -> None:
        with self._lock:
            if self._left > 0:
                self._left -= 1
                self._say(text)
                self._said = time.monotonic()
                return
            self._skipped += 1
            self._last = text
        self.flush()

    def flush(self, at_once: bool = False) -> None:
        """Say how many were left out, when that is due."""
        with self._lock:
            now = time.monotonic()
            if self._skipped and (at_once or now - self._said > self._pause_s):
                self._say(f"{self._last} (and {self._skipped - 1} more like it)" if self._skipped > 1 else self._last)
                self._skipped, self._said = 0, now
