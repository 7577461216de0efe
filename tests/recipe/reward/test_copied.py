# SPDX-License-Identifier: Apache-2.0
"""Work that stands in the problem earns nothing; the truth as it is written, and what was worked out, is paid."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recipe.reward.copied import LONGEST_PROBLEM, is_copied
from verl_patches.utils.reward_score.r1_zero import compute_score, compute_scores

SUM = "Simplify $\\sqrt8 + \\sqrt{18}$."
#: (problem, truth, answer): right by its value, and work of the problem left undone.
COPIED = [
    (SUM, "5\\sqrt2", "\\sqrt8+\\sqrt{18}"),
    (SUM, "5\\sqrt2", "$\\sqrt{8}\\,+\\,\\sqrt{18}$."),
    (SUM, "5\\sqrt2", "\\left(\\sqrt{8}+\\sqrt{18}\\right)"),
    (SUM, "5\\sqrt2", "E = \\sqrt8+\\sqrt{18}"),
    ("Simplify $\\sqrt{8}$.", "2\\sqrt2", "\\sqrt 8"),
    ("Expand $(x-1)(x+1)$.", "x^2-1", "(x-1)(x+1)"),
    ("Expand $(x-1)(x+1)$.", "x^2-1", "(x−1)(x+1)"),  # noqa: RUF001
    ("Write $3x + 4x$ with one term.", "7x", "3x+4x"),
    ("Let $a=x+x$ and $b=y$. Give the point $(a,b)$.", "(2x,y)", "(x+x,y)"),
    ("What is $\\dfrac{x^2-1}{x-1}$, where $x\\ne1$?", "x+1", "\\frac{x^2-1}{x-1}"),
    ("Add $2\\pi+3\\pi$.", "5\\pi", "2\\pi + 3\\pi"),
    ("Add 2π+3π.", "5\\pi", "2\\pi + 3\\pi"),
    ("Reduce $\\frac{2}{4}$.", "\\frac12", "\\frac24"),
    ("Reduce 2/4.", "\\frac12", "2/4"),
]
#: The same, and the answer is the truth as it is written, is worked out, or does not stand in the problem.
PAID = [
    ("Which has a root: $x^2+1$ or $x^2-1$?", "x^2-1", "x^2-1"),
    ("Which has a root: $x^2+1$ or $x^2-1$?", "x^2-1", "x^{2} - 1"),
    ("Which is larger, $\\frac{1}{2}$ or $\\frac13$?", "\\frac{1}{2}", "\\frac{1}{2}"),
    ("Which is larger, $\\frac{1}{2}$ or $\\frac13$?", "0.5", "\\frac12"),
    ("Which is larger, $1/2$ or $1/3$?", "0.5", "1/2"),
    ("Which is smaller, $-3$ or 4?", "-3", "-3"),
    ("Half of 2 1/2?", "1\\frac14", "\\frac54"),
    ("What is 13 + 45?", "58", "58"),
    ("What is $13x + 45x$?", "3x+4x+51x", "58x"),
    ("Is it $y = 2x+1$?", "y=2x+1", "2x+1"),
    (SUM, "5\\sqrt2", "5\\sqrt{2}"),
    (SUM, "5\\sqrt2", "\\sqrt{50}"),
    ("Find $a+b$.", "7", "a+b=7"),
    ("Find $P(A|B)$.", "\\frac34", "\\frac34"),
    ("An angle of $90^\\circ$ is what?", "90", "90^\\circ"),
    ("Points $(1,-2)$ and $(3,-4)$: which is lower?", "(3,-4)", "(3,-4)"),
]


def respond(answer: str) -> str:
    return f"<think>a</think><answer>\\boxed{{{answer}}}</answer>"


def score(problem: str | None, truth: Any, answer: str, **settings: Any) -> dict[str, Any]:
    extra = {"index": 0} if problem is None else {"index": 0, "problem": problem}
    return compute_score("d", respond(answer), truth, extra, **settings)


@pytest.mark.parametrize(("problem", "truth", "answer"), COPIED)
def test_copied_work_earns_nothing(problem: str, truth: str, answer: str) -> None:
    graded = score(problem, truth, answer)
    unpaid = graded["verdict"] == "copied" or score(None, truth, answer)["verdict"] != "correct"
    assert unpaid and graded["acc"] == 0.0 and graded["score"] == pytest.approx(0.33)
    assert is_copied(answer, [truth], problem)


@pytest.mark.parametrize(("problem", "truth", "answer"), PAID)
def test_what_was_worked_out_or_is_the_truth_itself_is_paid(problem: str, truth: str, answer: str) -> None:
    assert not is_copied(answer, [truth], problem)
    assert score(problem, truth, answer)["verdict"] == score(None, truth, answer)["verdict"] != "copied"


def test_the_examples_of_copied_work_are_paid_where_the_problem_is_not_known_or_the_key_is_off() -> None:
    paid = [example for example in COPIED if score(None, *example[1:])["acc"] == 1.0]
    assert len(paid) >= 10
    for problem, truth, answer in paid:
        assert score(problem, truth, answer)["verdict"] == "copied"
        assert score(problem, truth, answer, refuse_copied=False)["acc"] == 1.0


def test_any_way_in_which_the_truth_is_written_is_paid() -> None:
    problem = "Which one is it, $x+x$ or $x\\cdot x$?"
    assert score(problem, "2x", "x+x")["verdict"] == "copied"
    assert score(problem, ["2x", "x+x"], "x+x")["verdict"] == "correct"


@pytest.mark.parametrize("extra", [None, {}, {"problem": None}, {"problem": ["x+x"]}, "x+x", 3])
def test_extra_info_without_a_problem_refuses_nothing(extra: Any) -> None:
    assert compute_score("d", respond("x+x"), "2x", extra)["acc"] == 1.0


@pytest.mark.parametrize(
    ("verifier", "response"),
    [
        ("acc", respond("x+x")),
        ("math_17k_acc", "\\boxed{x+x}"),
        ("dapo", "Answer: x+x"),
        ("format", respond("x+x")),
    ],
)
def test_every_rule_looks_at_its_own_answer(verifier: str, response: str) -> None:
    graded = compute_score("d", response, "2x", {"problem": "What is $x+x$?"}, verifier=verifier)
    assert graded["verdict"] == "copied"
    assert graded["score"] == (-1.0 if verifier == "dapo" else float(verifier == "format"))


def test_grading_processes_refuse_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    cases = [*COPIED, *PAID]
    arguments: dict[str, Any] = {
        "data_sources": ["d"] * len(cases),
        "solution_strs": [respond(answer) for _, _, answer in cases],
        "ground_truths": [truth for _, truth, _ in cases],
        "extra_infos": [{"problem": problem} for problem, _, _ in cases],
        "workers": 1,
    }
    here = [score(*case) for case in cases]
    assert [{**graded, "lost_workers": 0} for graded in here] == compute_scores(**arguments)
    assert "copied" not in {graded["verdict"] for graded in compute_scores(**arguments, refuse_copied=False)}


@settings(deadline=None)
@given(st.text(alphabet="1x+-*/^{}\\$ .,()=", max_size=40), st.text(alphabet="1x+-*/^{}\\$ .,()=", max_size=80))
def test_any_text_is_answered_and_the_truth_itself_is_never_copied(answer: str, problem: str) -> None:
    assert is_copied(answer, [], problem) in (True, False)
    assert not is_copied(answer, [answer], answer + problem)


def test_the_cost_is_linear_in_a_hostile_problem() -> None:
    answer = "x" + "+x" * 400
    start = time.process_time()
    assert not is_copied(answer, ["0"], ("x+" * 400 + "y+") * (LONGEST_PROBLEM // 800))
    assert time.process_time() - start < 1.0
    start = time.process_time()
    is_copied("(" * 500 + "x+1" + ")" * 490, ["0"], "(" * LONGEST_PROBLEM)
    assert time.process_time() - start < 1.0
