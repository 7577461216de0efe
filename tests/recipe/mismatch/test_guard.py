# SPDX-License-Identifier: Apache-2.0
"""A flip is within the guard, whatever it costs; engines that compute another model are not."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from recipe.mismatch.alignment import align
from recipe.mismatch.comparison import Comparison, compare
from recipe.mismatch.guard import beyond
from tests.recipe.mismatch.made_up import PROMPT, Step

ANSWER = (1, 2)


def compared(step: Step, directory: Path) -> Comparison:
    return compare(7, align(step.write(directory)), worst=0)


def test_one_flip_may_cost_what_it_will(tmp_path: Path) -> None:
    one = compared(Step(flips=[(ANSWER, 1, PROMPT)], moved={(ANSWER, 1): -3.0}), tmp_path)
    assert one.pearson < 0.9 and beyond(one) == []


def test_one_token_may_differ_without_a_flip_and_not_many(tmp_path: Path) -> None:
    step = Step(moved={(ANSWER, 1): -0.3})
    one = compared(step, tmp_path)
    assert one.rest.largest_difference > 0.1 and beyond(one) == []
    everywhere = {
        (answer, token): -0.03 for answer, made in step.answers.items() for token in range(len(made["log_probs"]))
    }
    (line,) = beyond(compared(Step(moved=everywhere), tmp_path))
    assert line.startswith("probabilities of the rest differ by 0.0") and "in the mean" in line


def test_many_flips_are_told(tmp_path: Path) -> None:
    many = [((rank, row), 1, PROMPT) for rank in range(2) for row in range(4)]
    (line,) = beyond(compared(Step(flips=many), tmp_path))
    assert line.endswith("% of the positions flip, expected 10% at most")


@pytest.mark.parametrize(("median", "told"), [(0.019, 0), (0.021, 1)])
def test_hidden_states_that_are_apart_are_told(median: float, told: int, tmp_path: Path) -> None:
    one = compared(Step(), tmp_path)
    layers = (*one.layers[:2], dataclasses.replace(one.layers[2], hidden_rest=(median, 0.5)))
    lines = beyond(dataclasses.replace(one, layers=layers))
    assert len(lines) == told and all("behind layer 2" in line for line in lines)
