# SPDX-License-Identifier: Apache-2.0
"""The part of a page that a program writes: what stands between two lines of it."""

from __future__ import annotations

from pathlib import Path


def with_part(file: Path, begin: str, end: str, part: str) -> str:
    """The text of `file` with `part` between its lines `begin` and `end`.

    Raises:
        ValueError: the file does not have each of the two lines once, in this order.
    """
    text = file.read_text(encoding="utf-8")
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(end) < text.index(begin):
        raise ValueError(f"{file} must have the line {begin!r} once and, below it, the line {end!r} once")
    before, rest = text.split(begin)
    return f"{before}{begin}\n{part}\n{end}{rest.split(end)[1]}"
