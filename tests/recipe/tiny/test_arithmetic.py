# SPDX-License-Identifier: Apache-2.0
"""The problems: disjoint splits, right answers, demonstrations that the reward understands."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recipe.tiny.arithmetic import Sum, demonstration, split_sums
from verl_patches.utils.reward_score.r1_zero import compute_score


@given(st.integers(1, 30), st.floats(0.01, 0.99), st.integers(0, 10))
def test_every_pair_of_operands_is_in_exactly_one_split(largest: int, share: float, seed: int) -> None:
    training, validation = split_sums(largest, share, seed)
    pairs = [frozenset((item.left, item.right)) for item in training + validation]
    expected = {frozenset((a, b)) for a in range(largest + 1) for b in range(largest + 1)}
    assert len(pairs) == len(expected) and set(pairs) == expected
    assert validation
    assert split_sums(largest, share, seed) == (training, validation)


def test_operands_come_in_both_orders() -> None:
    training, _ = split_sums(19, 0.2, 0)
    assert 60 < sum(item.left > item.right for item in training) < 110


@pytest.mark.parametrize(("largest", "share"), [(0, 0.2), (19, 0.0), (19, 1.0)])
def test_bad_split_is_refused(largest: int, share: float) -> None:
    with pytest.raises(ValueError, match="largest operand"):
        split_sums(largest, share, 0)


@given(st.integers(0, 99), st.integers(0, 99))
def test_worked_response_gets_full_marks(left: int, right: int) -> None:
    item = Sum(left, right)
    assert compute_score("sum", item.worked, item.problem()["answer"])["score"] == 1.0
    assert str(left) in item.problem()["problem"] and str(right) in item.problem()["problem"]


def test_guesses_keep_the_format_and_are_nearly_always_wrong() -> None:
    rng = random.Random(0)
    scores = [compute_score("sum", demonstration(Sum(7, 8), 1.0, 19, rng), "15") for _ in range(2000)]
    assert all(score["format"] == 1.0 for score in scores)
    assert 0.005 < sum(score["acc"] for score in scores) / 2000 < 0.06


def test_share_of_guesses_is_as_asked() -> None:
    rng = random.Random(0)
    guesses = sum("+" not in demonstration(Sum(7, 8), 0.65, 19, rng) for _ in range(4000))
    assert abs(guesses / 4000 - 0.65) < 0.03
    assert demonstration(Sum(7, 8), 0.0, 19, rng) == Sum(7, 8).worked
