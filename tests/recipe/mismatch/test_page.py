# SPDX-License-Identifier: Apache-2.0
"""What the pages say of a step."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest

from recipe.mismatch.alignment import align
from recipe.mismatch.comparison import Comparison, compare
from recipe.mismatch.page import page, sweep
from tests.recipe.mismatch.made_up import PROMPT, Step

ANSWER = (1, 2)


@pytest.fixture
def comparison(tmp_path: Path) -> Comparison:
    step = Step(flips=[(ANSWER, 1, PROMPT)], moved={(ANSWER, 1): -0.5})
    return compare(7, align(step.write(tmp_path)), worst=2)


def text_of(comparison: Comparison) -> str:
    return "\n".join(page(comparison, lambda tokens: f"<{len(tokens)}>"))


def test_a_step_in_full(comparison: Comparison) -> None:
    lines = text_of(comparison).splitlines()
    assert lines[0] == f"step 7: {comparison.tokens} sampled tokens; cause: routing flips"
    worst = comparison.worst[0]
    assert f"  {100 * worst.loss_share:.2f}% of it: token 4 of answer 1:2: '<1>' behind '<4>'" in lines
    p = math.exp(worst.rollout)
    assert f"    p: rollout {p:.4f}, actor {p * math.exp(-0.5):.4f}, actor with the rollout's routes {p:.4f}" in lines
    (flip,) = [line for line in lines if line.startswith("    layer 1 here: rollout {")]
    (left,), (right,) = (set(one) - set(other) for one, other in (
        (worst.own[0].rollout, worst.own[0].actor), (worst.own[0].actor, worst.own[0].rollout),
    ))  # fmt: skip
    assert f"rollout {{{left}}}" in flip and f"actor {{{right}}}" in flip
    assert max(map(len, lines)) <= 140


def test_figures_that_are_none_are_a_dash(comparison: Comparison) -> None:
    hollow = dataclasses.replace(comparison, replayed_pearson=math.nan, worst=())
    assert "nan" not in text_of(hollow).lower()


def test_routes_that_were_not_taken_are_told(comparison: Comparison) -> None:
    assert "did not take" not in text_of(comparison)
    assert "did not take 3 of the rollout's routes" in text_of(dataclasses.replace(comparison, not_replayed=3))


def test_several_steps_are_a_line_each(comparison: Comparison) -> None:
    head, first, second = sweep([comparison, dataclasses.replace(comparison, step=8)])
    assert head.split()[:3] == ["step", "Pearson", "replayed"]
    assert first.split()[0] == "7" and second.split()[0] == "8" and first.endswith("routing flips")
