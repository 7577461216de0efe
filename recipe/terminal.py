# SPDX-License-Identifier: Apache-2.0
"""Output for a person who may have gone: a reader that is closed, a terminal that is gone, a full disk.

Standard library alone: it is imported before anything heavy.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO


class Unfailing:
    """A text stream that writes to another one for as long as that goes, and then to nowhere."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def write(self, text: str) -> int:
        try:
            return self._out.write(text)
        except UnicodeEncodeError:
            return self.write(text.encode("ascii", "backslashreplace").decode("ascii"))
        except (OSError, ValueError):  # ValueError: it is closed
            _lead_nowhere(self._out)
            return len(text)

    def flush(self) -> None:
        try:
            self._out.flush()
        except (OSError, ValueError):
            _lead_nowhere(self._out)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._out, name)


def _lead_nowhere(stream: TextIO) -> None:
    """Let what a stream still holds vanish: Python flushes once more at its end, and would fail at that."""
    try:
        number, nowhere = stream.fileno(), os.open(os.devnull, os.O_WRONLY)
    except (OSError, ValueError):
        return  # no file behind it, or no descriptor left
    os.dup2(nowhere, number)
    os.close(nowhere)


def never_fail() -> None:
    """Let no `print` of this process fail from now on."""
    sys.stdout, sys.stderr = (stream if stream is None else Unfailing(stream) for stream in (sys.stdout, sys.stderr))


@contextmanager
def unfailing_output() -> Iterator[None]:
    """Within the block no `print` fails."""
    before = sys.stdout, sys.stderr
    never_fail()
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        sys.stdout, sys.stderr = before
