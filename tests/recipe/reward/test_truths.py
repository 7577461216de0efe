# SPDX-License-Identifier: Apache-2.0
"""Which ground truths an answer can match, by which rule, and what those look like that none can."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recipe.reward import truths
from recipe.reward.truths import can_be_matched, unmatched_kind
from recipe.reward.verdict import Verdict
from recipe.reward.verifiers import VERIFIERS, get_verifier


@pytest.mark.parametrize("verifier", VERIFIERS)
@pytest.mark.parametrize("truth", ["4", "-3.5", "\\frac{1}{2}", "(1,2)", "x^2+1", "2\\sqrt{3}", "Monday", "1, 2"])
def test_what_the_grammar_reads_can_be_matched_by_every_rule(truth: str, verifier: str) -> None:
    assert can_be_matched(truth, verifier)
    response = f"<think>a</think><answer>\\boxed{{{truth}}}</answer>" if verifier != "dapo" else f"Answer: {truth}"
    assert get_verifier(verifier)(response, truth).verdict is Verdict.CORRECT


@pytest.mark.parametrize(
    ("truth", "kind"),
    [
        ("#### 4", "other"),
        ("\\boxed{4} or \\boxed{5}", "box"),
        ("a}", "unbalanced braces"),
        ("It does not converge, since 1 = 2 there", "prose"),
        ("1" * 1001, "over 1000 characters"),
        ("", "empty"),
        ("</answer>", "equation or inequality"),
    ],
)
def test_what_cannot_be_matched_has_a_kind(truth: str, kind: str) -> None:
    assert not can_be_matched(truth, "r1_zero")
    assert unmatched_kind(truth) == kind


def test_a_rule_that_reads_texts_only_can_match_them() -> None:
    assert can_be_matched("It does not converge, since 1 = 2 there", "math_lighteval")
    assert not can_be_matched("", "math_lighteval") and not can_be_matched("a}", "math_lighteval")


def test_any_of_several_is_enough() -> None:
    assert can_be_matched(["It does not converge, since 1 = 2 there", "1"], "r1_zero")
    assert not can_be_matched([None, ["1"]], "r1_zero")


@settings(deadline=None)
@given(st.text(alphabet="1x+{}\\<>:/answerboxd ", max_size=30))
def test_the_short_way_finds_what_the_rule_finds(truth: str) -> None:
    response = f"<think>a</think><answer>\\boxed{{{truth}}}</answer>"
    if can_be_matched(truth, "r1_zero"):
        assert get_verifier()(response, truth).verdict is Verdict.CORRECT


@settings(deadline=None)
@given(st.from_regex(truths._PLAIN, fullmatch=True))
def test_what_is_taken_for_plain_is_read_and_equal_to_itself(truth: str) -> None:
    assert truths._is_read(truth) and truths._is_surely_found(truth)
