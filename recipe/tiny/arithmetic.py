# SPDX-License-Identifier: Apache-2.0
"""Sums of two small numbers: problems in the DeepScaleR schema, and demonstrations for the warm start.

Each unordered pair of operands makes exactly one problem (its order is drawn once), and every pair is either a
training or a validation pair. So the validation score counts sums that were never seen, not even with the operands
exchanged.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TypedDict


class Problem(TypedDict):
    """One record of the DeepScaleR schema."""

    problem: str
    answer: str
    solution: str


@dataclass(frozen=True)
class Sum:
    """The sum ``left + right``."""

    left: int
    right: int

    @property
    def value(self) -> int:
        return self.left + self.right

    @property
    def question(self) -> str:
        return f"What is {self.left} + {self.right}?"

    @property
    def worked(self) -> str:
        """The response that works the sum out."""
        return f"<think>{self.left}+{self.right}={self.value}</think><answer>\\boxed{{{self.value}}}</answer>"

    def problem(self) -> Problem:
        return {
            "problem": self.question,
            "answer": str(self.value),
            "solution": f"{self.left}+{self.right}={self.value}",
        }


def split_sums(largest: int, validation_share: float, seed: int) -> tuple[list[Sum], list[Sum]]:
    """All sums of two numbers from 0 to ``largest``, as (training, validation) in shuffled order.

    ``validation_share`` of the unordered pairs, at least one, are for validation.
    """
    if largest < 1 or not 0 < validation_share < 1:
        raise ValueError(f"largest operand {largest} must be at least 1, validation share {validation_share} in (0, 1)")
    rng = random.Random(f"sums {seed}")
    sums = []
    for low in range(largest + 1):
        for high in range(low, largest + 1):
            sums.append(Sum(low, high) if rng.random() < 0.5 else Sum(high, low))
    rng.shuffle(sums)
    cut = max(1, round(len(sums) * validation_share))
    return sums[cut:], sums[:cut]


def demonstration(item: Sum, guess_share: float, largest: int, rng: random.Random) -> str:
    """A response in the R1 format: worked out, or, with probability ``guess_share``, a bare guess.

    A guess is any number that can be a sum of two numbers up to ``largest``, so it is nearly always wrong.
    """
    return guess(rng.randint(0, 2 * largest)) if rng.random() < guess_share else item.worked


def guess(value: int) -> str:
    """The response that says a number without working it out."""
    return f"<think>say {value}</think><answer>\\boxed{{{value}}}</answer>"
