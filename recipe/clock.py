# SPDX-License-Identifier: Apache-2.0
"""Lines for a person, each with the time since a command began."""

from __future__ import annotations

import contextlib
import math
import time
from pathlib import Path
from typing import TextIO

from recipe.text import printable


class Clock:
    """Prints lines with the time since the start, so that a person sees where the minutes go."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._copy: Path | None = None
        self._said: list[str] = []
        self.start = time.monotonic()

    def copy_to(self, path: Path) -> None:
        """Append all lines, past and future, to a file too: a terminal may be closed."""
        self._copy = path
        self._write("".join(self._said))
        self._said.clear()

    def say(self, text: str) -> None:
        line = self._line(text)
        print(line, end="", file=self._out, flush=True)
        self._keep(line)

    def note(self, text: str) -> None:
        """Write a line into the file only."""
        self._keep(self._line(text))

    def _line(self, text: str) -> str:
        return f"[{minutes(time.monotonic() - self.start)}] {printable(text)}\n"

    def _keep(self, line: str) -> None:
        if self._copy is None:
            self._said.append(line)
        else:
            self._write(line)

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError), open(str(self._copy), "a", encoding="utf-8", errors="replace") as file:
            file.write(text)


def minutes(seconds: float) -> str:
    """`m:ss`."""
    if not math.isfinite(seconds):
        return "?"
    rounded = max(0, round(seconds))
    return f"{rounded // 60}:{rounded % 60:02d}"
