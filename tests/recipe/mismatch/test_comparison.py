# SPDX-License-Identifier: Apache-2.0
"""The figures of a step, and the cause that is named, where the test knows them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from recipe.mismatch.alignment import align
from recipe.mismatch.comparison import NO_DIP, OTHER, ROUTES, Comparison, compare, loss_parts, margins, pearson
from tests.recipe.mismatch.made_up import CHOSEN, LAYERS, PROMPT, Step

ANSWER = (1, 2)  # it has the tokens 3 to 7, sampled from the positions 2 to 6


def compared(step: Step, directory: Path) -> Comparison:
    return compare(7, align(step.write(directory)), worst=3)


def test_engines_that_agree(tmp_path: Path) -> None:
    one = compared(Step(), tmp_path)
    assert one.pearson == pytest.approx(1) and one.kl == 0 and one.cause == NO_DIP
    assert one.same.share == 1 and one.own.share == one.before.share == 0
    assert [layer.flips for layer in one.layers] == [None, 0, 0]
    assert all(layer.hidden_rest == (0, 0) for layer in one.layers)
    assert json.loads(json.dumps(one.as_json(), allow_nan=False))["own"]["pearson"] is None


def test_a_planted_flip_is_found_with_all_that_it_touches(tmp_path: Path) -> None:
    position = PROMPT  # the token behind it is the answer's second
    step = Step(flips=[(ANSWER, 1, position), (ANSWER, 2, position)], moved={(ANSWER, 1): -0.5})
    one = compared(step, tmp_path)
    assert one.cause == ROUTES and one.pearson < 0.999 and one.replayed_pearson == pytest.approx(1)
    assert one.own.share == pytest.approx(1 / one.tokens)
    sampled_later = len(step.answers[ANSWER]["log_probs"]) - 2
    assert one.before.share == pytest.approx(sampled_later / one.tokens)
    assert one.own.loss_share + one.before.loss_share + one.same.loss_share == pytest.approx(1)
    assert one.rest.loss_share == pytest.approx(1 - one.own.loss_share) and one.rest.pearson > 0.9999
    assert one.own.largest_log_difference == pytest.approx(0.5)
    assert [layer.flips for layer in one.layers] == [None, *[pytest.approx(1 / one.tokens)] * 2]
    assert [layer.first_flips for layer in one.layers] == [None, pytest.approx(1 / one.tokens), 0]
    worst = one.worst[0]
    assert (worst.origin, worst.position, worst.copies) == (ANSWER, position + 1, 1)
    assert worst.token == step.answers[ANSWER]["tokens"][position + 1]
    assert worst.rollout - worst.actor == pytest.approx(0.5) and worst.replayed == worst.rollout
    assert [(flip.layer, flip.position) for flip in worst.own] == [(1, position), (2, position)] and not worst.before
    flip = worst.own[0]
    assert len(set(flip.rollout) & set(flip.actor)) == CHOSEN - 1 and min(flip.margins) > 0


def test_a_token_behind_a_flip_further_back_is_told_from_one_at_it(tmp_path: Path) -> None:
    one = compared(Step(flips=[(ANSWER, 1, 0)], moved={(ANSWER, 2): 0.4}), tmp_path)
    assert one.own.share == 0 and one.before.loss_share > 0.5 and one.cause == ROUTES
    assert not one.worst[0].own and [flip.position for flip in one.worst[0].before] == [0]


def test_what_the_last_layer_chose_further_back_is_seen_by_nobody(tmp_path: Path) -> None:
    one = compared(Step(flips=[(ANSWER, LAYERS - 1, 0)], moved={(ANSWER, 2): 0.4}, mended=False), tmp_path)
    assert one.own.share == one.before.share == 0 and one.same.share == 1 and not one.worst[0].before


@pytest.mark.parametrize(
    "flips",
    [
        [],  # nothing was flipped
        [(ANSWER, 1, PROMPT)],  # the flip is there, but replaying it mends nothing
    ],
)
def test_what_is_no_flip_s_work_is_not_called_so(flips: list[tuple[tuple[int, int], int, int]], tmp_path: Path) -> None:
    one = compared(Step(flips=flips, moved={(ANSWER, 1): -0.5}, mended=False), tmp_path)
    assert one.pearson < 0.999 and one.cause == OTHER


def test_answers_that_are_equal_so_far_count_as_one_token(tmp_path: Path) -> None:
    step = Step(flips=[((0, 3), 1, PROMPT), (ANSWER, 1, PROMPT)], moved={((0, 3), 1): -0.5, (ANSWER, 1): -0.5})
    for name, value in step.answers[0, 3].items():
        step.answers[ANSWER][name] = value.clone()
    one = compared(step, tmp_path)
    assert one.worst[0].copies == 2 and one.worst[0].loss_share == pytest.approx(one.own.loss_share)


def test_the_parts_add_up_to_what_the_correlation_lacks() -> None:
    draw = torch.Generator().manual_seed(3)
    left = torch.rand(50, generator=draw)
    right = left + 0.1 * torch.rand(50, generator=draw)
    parts = loss_parts(left, right)
    assert parts.sum() == pytest.approx(1 - pearson(left, right), rel=1e-9) and (parts >= 0).all()
    assert math.isnan(pearson(left[:1], right[:1]))


def test_margins_are_between_the_last_chosen_and_the_first_not_chosen() -> None:
    scores = torch.tensor([[0.9, 0.5, 0.4, 0.1], [0.9, 0.5, 0.4, 0.1]])
    chosen = torch.tensor([[True, True, False, False], [True, False, True, False]])
    assert margins(scores, chosen).tolist() == pytest.approx([0.1, -0.1])
