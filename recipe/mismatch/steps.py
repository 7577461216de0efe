# SPDX-License-Identifier: Apache-2.0
"""Steps as text: `13`, `10-20`, `3,10-20`. Standard library only."""

from __future__ import annotations

import re
from collections.abc import Iterable

_PART = re.compile(r"([1-9][0-9]{0,8})(?:-([1-9][0-9]{0,8}))?")
# More are hardly meant, and each takes disk.
MOST_STEPS = 10_000


def parse_steps(text: str) -> tuple[int, ...]:
    """The steps that a text names, in order and once each.

    >>> parse_steps("13"), parse_steps("20,10-12")
    ((13,), (10, 11, 12, 20))

    Raises:
        ValueError: says what was found and what is expected.
    """
    steps: set[int] = set()
    for part in text.split(","):
        match = _PART.fullmatch(part.strip())
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if last < first or last - first >= MOST_STEPS:
            raise ValueError(f"{part.strip()[:40]!r} names no steps; give numbers from 1 on, as in 13 or 3,10-20")
        steps.update(range(first, last + 1))
    return tuple(sorted(steps))


def steps_text(steps: Iterable[int]) -> str:
    """Steps as `parse_steps` reads them.

    >>> steps_text((10, 11, 12, 20))
    '10-12,20'
    """
    runs: list[list[int]] = []
    for step in sorted(set(steps)):
        if runs and runs[-1][1] == step - 1:
            runs[-1][1] = step
        else:
            runs.append([step, step])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)
