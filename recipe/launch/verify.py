# SPDX-License-Identifier: Apache-2.0
"""`--verify-checkpoint`: every byte of a checkpoint is read and compared with its manifest."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from recipe.checkpoints import Manifest, sum_files
from recipe.sizes import size_text

# Storage that many nodes share answers many readers faster than one.
THREADS = min(64, 4 * (os.cpu_count() or 1))
SAY_EVERY_S = 10.0


class Rate:
    """Prints how much has been read, how fast, and how long the rest takes, at most every SAY_EVERY_S."""

    def __init__(self, total: int, say: Callable[[str], None], now: Callable[[], float] = time.monotonic) -> None:
        """`total`: bytes to read; `now`: a clock in seconds."""
        self._total, self._say, self._now = total, say, now
        self._read = 0
        self._start = self._said = now()
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        """`count` more bytes have been read."""
        with self._lock:
            self._read += count
            now = self._now()
            if now - self._said < SAY_EVERY_S:
                return
            self._said = now
            rate = self._read / (now - self._start)
            remaining_s = (self._total - self._read) / rate
            self._say(
                f"checked {_text(self._read)} of {_text(self._total)}, {_text(rate)}/s, {remaining_s / 60:.0f} min left"
            )


def sum_problem(checkpoint: Path, manifest: Manifest, say: Callable[[str], None]) -> str | None:
    """What differs from the manifest, None when nothing does; `say` takes lines about the progress."""
    rate = Rate(sum(stored.bytes for stored in manifest.files.values()), say)
    try:
        sums = sum_files(checkpoint, list(manifest.files), THREADS, rate.add)
    except OSError as error:
        return f"{error.filename} cannot be read: {error.strerror}"
    wrong = [name for name, wanted in manifest.files.items() if sums[name] != wanted]
    if not wrong:
        return None
    more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
    return f"{wrong[0]}{more} is not what was written: another SHA-256 than in its manifest"


def _text(size: float) -> str:
    return size_text(size, base=1000)
