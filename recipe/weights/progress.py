# SPDX-License-Identifier: Apache-2.0
"""How far a job is, how fast, and how long it will take: a bar on a terminal, plain lines otherwise."""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType
from typing import Any, TextIO

_PAUSE = 10.0


def show(done: int, total: int, seconds: float) -> str:
    """One line: bytes so far, GB/s since the start, time left."""
    speed = done / max(seconds, 1e-3)
    remaining_s = (total - done) / speed if speed else 0.0
    return f"{done / 1e9:.2f} of {total / 1e9:.2f} GB, {speed / 1e9:.2f} GB/s, {clock(remaining_s)} left"


def clock(seconds: float) -> str:
    """h:mm:ss"""
    rounded = round(seconds)
    return f"{rounded // 3600}:{rounded // 60 % 60:02}:{rounded % 60:02}"


class ProgressLine:
    """A context manager; called with numbers of bytes, from any thread."""

    def __init__(self, what: str, total: int, stream: TextIO | None = None) -> None:
        self._what, self._total = what, total
        self._stream = stream or sys.stderr
        self._done = 0
        self._mutex = threading.Lock()
        self._bar: Any = None

    def __enter__(self) -> ProgressLine:
        self._start = self._said = time.monotonic()
        if self._stream.isatty():
            self._bar = _bar(self._stream)
            self._task = self._bar.add_task(self._what, total=self._total)
            self._bar.start()
        return self

    def __call__(self, nbytes: int) -> None:
        with self._mutex:
            self._done += nbytes
            if self._bar is not None:
                self._bar.update(self._task, completed=self._done)
                return
            now = time.monotonic()
            if now - self._said >= _PAUSE:
                self._said = now
                self._say(now)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif kind is None:
            self._say(time.monotonic())

    def _say(self, now: float) -> None:
        line = show(self._done, self._total, now - self._start)
        print(f"{self._what}: {line}", file=self._stream, flush=True)


def _bar(stream: TextIO) -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bar

    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()
    return Bar(*columns, TimeRemainingColumn(), console=Console(file=stream))
