# SPDX-License-Identifier: Apache-2.0
"""The r1_zero reward: its values, what it never does, and its cost on hostile text."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recipe.reward.verdict import Verdict
from verl_patches.utils.reward_score.r1_zero import compute_score, compute_scores


def respond(answer: str, thought: str = "so") -> str:
    return f"<think>{thought}</think><answer>\\boxed{{{answer}}}</answer>"


def score(response: Any, truth: Any) -> dict[str, Any]:
    return compute_score("deepscaler", response, truth, extra_info={"index": 0})


@pytest.mark.parametrize(
    ("response", "truth", "form", "acc"),
    [
        (respond("18"), "18", 1, 1),
        (respond("19"), "18", 1, 0),
        (respond(""), "18", 1, 0),
        ("<answer>\\boxed{18}</answer>", "18", 0, 1),
        ("it is 18", "18", 0, 0),
        ("\\boxed{18}", "18", 0, 0),
        ("<think>\\boxed{18}</think><answer>18</answer>", "18", 0, 0),
        ("<think>18 18 18</think><answer>\\boxed{2}</answer>", "18", 1, 0),
        (respond("17} \\boxed{18"), "18", 1, 1),
        (respond("18") + respond("18"), "18", 0, 1),
        ("", "18", 0, 0),
        ("", "", 0, 0),
        (None, "18", 0, 0),
        (18, "18", 0, 0),
    ],
)
def test_scores(response: Any, truth: str, form: float, acc: float) -> None:
    graded = score(response, truth)
    assert graded.pop("verdict") in [verdict.value for verdict in Verdict]
    assert graded == {"score": pytest.approx(0.33 * form + 0.67 * acc), "acc": acc, "format": form}


def test_full_marks_are_one() -> None:
    assert score(respond("1/2"), "\\frac{1}{2}")["score"] == 1.0


@pytest.mark.parametrize(
    ("truth", "answer", "acc"),
    [
        (12, "12", 1),
        (12.0, "12", 1),
        (0.5, "\\frac12", 1),
        (True, "true", 1),
        ("None", "None", 1),
        (None, "None", 0),
        (None, "", 0),
        ("", "", 0),
        (" ", " ", 0),
        (["3", 4], "4", 1),
        (["3", 4], "5", 0),
        ([["3"]], "3", 0),
        ([], "", 0),
        ({"value": "3"}, "3", 0),
        (float("nan"), "NaN", 0),
        pytest.param(10**5000, "1" + "0" * 5000, 0, id="huge integer"),
    ],
)
def test_ground_truths_of_any_type(truth: Any, answer: str, acc: float) -> None:
    assert score(respond(answer), truth)["acc"] == acc


@given(st.text(max_size=200), st.text(max_size=50))
def test_any_text_is_graded_the_same_each_time(response: str, truth: str) -> None:
    first = score(response, truth)
    assert first == score(response, truth)
    assert first["acc"] in (0.0, 1.0) and first["format"] in (0.0, 1.0)
    assert first["score"] == pytest.approx(0.33 * first["format"] + 0.67 * first["acc"])


@given(st.text(alphabet="0123456789", min_size=1, max_size=8), st.text(max_size=60))
def test_thinking_never_changes_the_verdict(answer: str, thought: str) -> None:
    thought = thought.replace("<", "")
    assert score(respond(answer, thought), answer)["score"] == 1.0
    assert score(respond(answer + "1", thought + answer), answer)["acc"] == 0.0


HOSTILE = {
    "open tags": "<think>" * 700_000,
    "all tags": "<think></think><answer></answer>" * 150_000,
    "open boxes": "<think></think><answer>" + "\\boxed{" * 700_000 + "</answer>",
    "open braces": "<think></think><answer>\\boxed{" + "{" * 5_000_000 + "</answer>",
    "braces": "<think></think><answer>\\boxed{" + "{}" * 2_500_000 + "}</answer>",
    "digits": respond("9" * 5_000_000),
    "tower": respond("9^" * 2_500_000 + "9"),
    "spaces": "<think>" + " " * 5_000_000 + "</think>" + " " * 5_000 + "<answer>\\boxed{1}</answer>",
    "spaces in the box": respond(" " * 990 + "1"),
    "backslashes": "<think></think><answer>" + "\\" * 5_000_000 + "</answer>",
    "zero bytes": "\x00" * 5_000_000,
    "surrogates": "\ud800" * 1_000_000 + respond("\udfff"),
    "combining": respond("e" + "\u0301" * 900),
    "almost done": "<think>" + "</think" * 700_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_of_5_mb_is_graded_at_once(name: str) -> None:
    start = time.process_time()
    result = score(HOSTILE[name], "1")
    # A quadratic step takes minutes at this length; linear ones take some hundredths of a second.
    assert time.process_time() - start < 3
    assert result["acc"] == (1.0 if name in ("spaces", "spaces in the box") else 0.0)


def test_code_in_an_answer_stays_text() -> None:
    assert score(respond("__import__('os').abort()"), "1")["acc"] == 0.0
    assert score(respond("9**9**9**9"), "1")["acc"] == 0.0
    assert score(respond("1000000000!"), "1")["acc"] == 0.0


def test_a_batch_is_graded_as_its_responses_alone() -> None:
    samples: list[tuple[Any, str]] = [(respond("1/2"), "0.5"), (respond("2"), "3"), ("no answer", "4"), (None, "5")]
    responses, truths = zip(*samples, strict=True)
    # By the names that verl's batch manager calls them.
    graded = compute_scores(
        data_sources=["x"] * 4, solution_strs=responses, ground_truths=truths, extra_infos=[{}] * 4, workers=1
    )
    assert graded == [{**score(*sample), "lost_workers": 0} for sample in samples]
    with pytest.raises(ValueError, match="unknown reward 'r2'"):
        compute_scores(["x"], ["a"], ["b"], verifier="r2")
    with pytest.raises(ValueError, match="at least one"):
        compute_scores(["x"], ["a"], ["b"], workers=0)
