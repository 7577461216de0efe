# SPDX-License-Identifier: Apache-2.0
"""How many steps an engine has made in each of its compiled graphs."""

# NPU-ADAPTATION: steps of a generation are counted by the graph that they ran in

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager


class StepCounts:
    """Steps of one generation: `graphs`, by the sequences of the graph, and `others`, which ran without one.

    An engine whose requests are all finished still steps along with those of its data-parallel domain; these steps are
    counted too.
    """

    def __init__(self) -> None:
        self.graphs: Counter[int] = Counter()
        self.others = 0

    def count(self, size: int | None) -> None:
        """A step in the graph for `size` sequences, or in none."""
        if size is None:
            self.others += 1
        else:
            self.graphs[size] += 1


_counts: StepCounts | None = None


@contextmanager
def counting_steps() -> Iterator[StepCounts]:
    """Within the block this process's engine counts its steps; what it runs outside only prepares for them."""
    global _counts
    before, _counts = _counts, StepCounts()
    try:
        yield _counts
    finally:
        _counts = before


def count_step(size: int | None) -> None:
    """Count a step in the graph for `size` sequences, or in none, if anybody asked for it."""
    if _counts is not None:
        _counts.count(size)
