# SPDX-License-Identifier: Apache-2.0
"""Each named reward pays exactly for its rule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recipe.reward.verdict import Verdict
from recipe.reward.verifiers import DEFAULT, VERIFIERS, count_steps, get_verifier, verify

GOOD = "<think>so</think><answer>\\boxed{5}</answer>"
BAD = "<think>so</think><answer>\\boxed{6}</answer>"
LOOSE = "<answer>\\boxed{5}</answer>"
BOXED = "so it is \\boxed{5}"
LINE = "Let me see.\nAnswer: 5"
NOTHING = "5"


def score(response: str, name: str = DEFAULT, mix: Mapping[str, float] | None = None, truth: str = "5") -> float:
    return verify(get_verifier(name, mix), response, truth).score


@pytest.mark.parametrize(
    ("name", "scores"),
    [
        ("format", (1, 1, 0, 0, 0, 0)),
        ("strict_format", (1, 1, -0.5, -0.5, -0.5, -0.5)),
        ("acc", (1, 0, 0, 0, 0, 0)),
        ("base_acc", (1, 0, 0, 0, 0, 0)),
        ("r1_zero", (1, 0.33, 0.67, 0, 0, 0)),
        ("step", (0, 0, 0, 0, 0, 0)),
        ("math_17k_acc", (1, 0, 1, 1, 0, 0)),
        ("dapo", (-1, -1, -1, -1, 1, -1)),
        ("math_lighteval", (1, 0, 1, 1, 0, 0)),
    ],
)
def test_scores(name: str, scores: tuple[float, ...]) -> None:
    responses = (GOOD, BAD, LOOSE, BOXED, LINE, NOTHING)
    assert [score(response, name) for response in responses] == pytest.approx(list(scores))


def test_every_verifier_is_tested_above() -> None:
    rows = test_scores.pytestmark[0].args[1]  # type: ignore[attr-defined]
    assert {row[0] for row in rows} == set(VERIFIERS)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'r2'; known are acc, base_acc, dapo, format, .*strict_format"):
        get_verifier("r2")
    with pytest.raises(ValueError, match="unknown reward 'r2'"):
        get_verifier(mix={"format": 1.0, "r2": 1.0})


def test_a_mix_is_the_weighted_sum() -> None:
    mix = {"acc": 2.0, "strict_format": 0.5, "step": -3}
    assert score(GOOD, mix=mix) == pytest.approx(2.5)
    assert score(BAD, mix=mix) == pytest.approx(0.5)
    assert score("1. a\n2. b\n3. c", mix=mix) == pytest.approx(-3.25)


@pytest.mark.parametrize("mix", [{}, {"acc": float("nan")}, {"acc": "1"}, {"acc": True}, {"acc": None}])
def test_a_mix_without_weights_is_refused(mix: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"mix of rewards is empty|must be a finite number"):
        get_verifier(mix=mix)


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("Answer: 5", Verdict.CORRECT),
        ("answer : $5$.", Verdict.CORRECT),
        ("Answer: 6\nAnswer:\n5", Verdict.CORRECT),
        ("Answer: 5\nAnswer: 6", Verdict.WRONG),
        ("Answer: 5\nmore\n", Verdict.CORRECT),
        ("Answer: 5" + " " * 300, Verdict.NO_ANSWER),
        ("Answer:", Verdict.NO_ANSWER),
        ("the answer is 5", Verdict.NO_ANSWER),
    ],
)
def test_dapo_reads_the_last_answer_line(text: str, verdict: Verdict) -> None:
    result = get_verifier("dapo")(text, "5")
    assert result.verdict is verdict
    assert result.score == (1 if verdict is Verdict.CORRECT else -1)


def test_math_lighteval_compares_texts_and_plain_numbers() -> None:
    verifier = get_verifier("math_lighteval")
    assert verifier("\\boxed{\\dfrac{1}{2}}", "0.5").score == 1
    assert verifier("\\boxed{ 2 \\sqrt{3} }", "2\\sqrt{3}").score == 1
    assert verifier("\\boxed{\\sqrt{12}}", "2\\sqrt{3}").score == 0
    assert verifier("nothing", "5").verdict is Verdict.NO_ANSWER


def test_steps_are_counted_at_the_start_of_lines() -> None:
    assert count_steps("Step 1: a\n  step 2. b\n3) c\n- d\n* e\nFirst, f\nFinally, g") == 7
    assert count_steps("in step 1: a, 2. b and 3.5\n4.5\n-5") == 0
    assert verify(get_verifier("step"), "1. a\n2. b", "5").score == pytest.approx(2 / 3)


@pytest.mark.parametrize("name", VERIFIERS)
def test_a_response_that_is_no_text_is_an_error(name: str) -> None:
    result = verify(get_verifier(name), None, "5")
    assert result.verdict is Verdict.ERROR and result.score == verify(get_verifier(name), "", "5").score


@given(st.sampled_from(sorted(VERIFIERS)), st.text(max_size=400), st.text(max_size=20))
def test_every_score_is_in_the_range_of_its_rule(name: str, response: str, truth: str) -> None:
    low, high = {"strict_format": (-0.5, 1), "dapo": (-1, 1)}.get(name, (0, 1))
    assert low <= score(response, name, truth=truth) <= high
