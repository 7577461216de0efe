# SPDX-License-Identifier: Apache-2.0
"""Which answers are right, wrong or unreadable, and what hostile ones cost in arithmetic."""

from __future__ import annotations

import time
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from recipe.reward.equality.expressions import same_function
from recipe.reward.equality.reals import Effort
from recipe.reward.grade import grade_answer, grade_response, same_answer
from recipe.reward.grammar.answers import read
from recipe.reward.grammar.normalise import normalise
from recipe.reward.grammar.values import Measure, Num, Op, Symbol
from recipe.reward.verdict import Verdict

RIGHT = [
    ("2\\sqrt{3}", "\\sqrt{12}"),
    ("\\frac{\\sqrt{2}}{2}", "1/\\sqrt2"),
    ("\\sqrt[3]{2}", "2^{1/3}"),
    ("\\sqrt{x^2}", "|x|"),
    ("(x-1)(x+1)", "x^2-1"),
    ("x^2y", "yx^2"),
    ("y=2x+1", "y=1+2x"),
    ("2\\frac{x}{y}", "2x/y"),
    ("\\frac{x^2-1}{x-1}", "x+1"),
    ("12\\pi", "\\pi\\cdot 12"),
    ("5 cm", "5\\text{ cm}"),
    ("5", "5\\text{ centimeters}"),
    ("5 \\mathrm{cm}^2", "5"),
    ("60 miles per hour", "60"),
    ("6 square units", "6"),
    ("5 dollars", "\\$5"),
    ("50 percent", "50\\%"),
    ("90^\\circ", "90°"),
    ("90^{\\circ}", "90"),
    ("1 1/2", "3/2"),
    ("1\\frac{1}{2}", "1.5"),
    ("-1\\frac{1}{2}", "-1.5"),
    ("1½", "\\frac32"),
    ("2.5\\times10^3", "2500"),
    ("2.5 \\cdot 10^{-3}", "0.0025"),
    ("(1,2)", "\\left( 1, 2 \\right)"),
    ("(1,234)", "(1, 234)"),
    ("(0.5, \\sqrt{8})", "(\\frac12, 2\\sqrt{2})"),
    ("[0,1)", "[0, 1)"),
    ("(3,\\infty) \\cup (-\\infty,2)", "(-∞,2)∪(3,∞)"),  # noqa: RUF001
    ("1,2", "2, 1"),
    ("1 and 2", "2, 1"),
    ("1\\text{ or }2", "1,2"),
    ("\\{1, 1/2\\}", "\\{0.5, 1\\}"),
    ("1\\pm\\sqrt{2}", "1-\\sqrt2, 1+\\sqrt2"),
    ("x=5", "5"),
    ("\\text{Yes}", "yes"),
    ("\\text{Monday}", "monday"),
    ("(A)", "\\text{A}"),
    ("\\mathbf{7.50}", "7.5"),
    ("101_2", "101_{2}"),
    ("$1,234.50", "1234.5"),
    ("1{,}234", "1,\\!234"),
    ("1024", "2^{10}"),
    ("7", "14/2"),
    ("7", "\\frac{14}{2}"),
    ("6/4", "3/2"),
    ("n!", "n(n-1)!"),
    ("2^{1009}", "2\\cdot 2^{1008}"),
]
WRONG = [
    ("1+1/2", "11/2"),
    ("2\\sqrt{3}", "\\sqrt{13}"),
    ("3.14", "\\pi"),
    ("x", "\\sqrt{x^2}"),
    ("x", "y"),
    ("x=5", "y=5"),
    ("5 m", "5 cm"),
    ("5\\text{ m}", "5 cm"),
    ("(2,1)", "(1,2)"),
    ("(0,1)", "[0,1]"),
    ("1,2", "1,2,2"),
    ("1,1,2", "1,2,2"),
    ("100, 200", "100200"),
    ("\\infty", "-\\infty"),
    ("101_2", "101_3"),
    ("101_2", "101"),
    ("A", "B"),
    ("Monday", "5"),
    ("3+4", "7"),
    ("14/2", "7"),
    ("-\\frac{14}{2}", "-7"),
    ("-\\frac{-14}{2}\\text{ cm}", "7"),
    ("2^{10}", "1024"),
    ("\\frac{14+0}{2}", "7"),
    ("\\sqrt{49}", "7"),
    ("7\\cdot 1", "7"),
    ("5\\%", "x"),
]
UNREADABLE = [
    "9^9^9^9", "1 2", "((1)", "\\foo{1}", "1e3", "x >", "\\int x", "1\\frac{3}{2}", "12\\text{ not}", "\\infty-\\infty",
    "18=19", "\\begin{pmatrix}1&2\\\\3\\end{pmatrix}", "2 2/2", "x=18=19", "\\cos x/2",
]  # fmt: skip


@pytest.mark.parametrize(("answer", "truth"), RIGHT)
def test_right_answers(answer: str, truth: str) -> None:
    assert grade_answer(answer, truth) is Verdict.CORRECT


@pytest.mark.parametrize(("answer", "truth"), WRONG)
def test_wrong_answers(answer: str, truth: str) -> None:
    assert grade_answer(answer, truth) is Verdict.WRONG


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("18", "$18"),
        ("18", "\\$18"),
        ("18", "18."),
        ("1,234", "1234"),
        ("\\dfrac{1}{2}", "0.5"),
        ("\\tfrac12", "1/2"),
        ("-3", "\N{MINUS SIGN}3"),
        ("(1, 2)", "\\left( 1,2 \\right)"),
        ("x = 5", "x=5"),
        ("25\\%", "\\frac{1}{4}"),
        ("25%", "25"),
        ("1\\,000", "1 000"),
    ],
)
def test_the_same_answers_are_so_in_both_directions(a: str, b: str) -> None:
    assert same_answer(a, b) and same_answer(b, a)


@pytest.mark.parametrize(
    ("a", "b"),
    [("1 1/2", "11/2"), ("2", "12"), ("2^10", "1025"), ("1e3", "1000"), ("a", "A"), ("", ""), ("1/3", "0.333")],
)
def test_different_answers_are_so_in_both_directions(a: str, b: str) -> None:
    assert not same_answer(a, b) and not same_answer(b, a)


@given(st.text(max_size=80))
def test_every_text_is_its_own_answer(a: str) -> None:
    assert same_answer(a, a) == bool(normalise(a))


@pytest.mark.parametrize("answer", UNREADABLE)
def test_unreadable_answers_are_told_apart_from_wrong_ones(answer: str) -> None:
    assert grade_answer(answer, "7") is Verdict.UNPARSEABLE
    assert grade_answer(answer, answer) is Verdict.CORRECT


@pytest.mark.parametrize(
    ("answer", "truth", "verdict"),
    [
        (None, "1", Verdict.NO_ANSWER),
        (" ", "1", Verdict.NO_ANSWER),
        ("$", "1", Verdict.NO_ANSWER),
        ("1", None, Verdict.ERROR),
        ("1", "", Verdict.ERROR),
        ("1", " $ ", Verdict.ERROR),
        ("1", [], Verdict.ERROR),
        ("1", ["", None], Verdict.ERROR),
        ("1", {"a": 1}, Verdict.ERROR),
        ("1", float("inf"), Verdict.ERROR),
        ("None", "None", Verdict.CORRECT),
        ("none", "None", Verdict.CORRECT),
        ("", "None", Verdict.NO_ANSWER),
        ("1", "None", Verdict.WRONG),
        ("2", ["1", "2"], Verdict.CORRECT),
        ("3", ["1", "2!"], Verdict.WRONG),
        ("0.50", 0.5, Verdict.CORRECT),
        ("1", True, Verdict.WRONG),
        ("True", True, Verdict.CORRECT),
    ],
)
def test_missing_answers_and_odd_ground_truths(answer: str | None, truth: Any, verdict: Verdict) -> None:
    assert grade_answer(answer, truth) is verdict


JOKERS = [
    "18 or 19", "18,19", "18|19", "18/19", "18;19", "18=19", "19=18", "x=18=19", "(18,19)", "[18,19]", "\\{18,19\\}",
    "18\\cup 19", "18\\pm 1", "\\pm 18", "18$19", "$18$ $19$", "18\\quad 19", "18\\ 19", "18~19", "18\n19", "18..19",
    "\\text{18 or 19}", "18\\text{ or }19", "\\text{18}\\text{19}", "\\boxed{18}19", "\\fbox{18}", "\\phantom{19}18",
    "18\\%19", "18\\%\\%", "18 cm 19", "18!", "18_{19}", "x-x+18", "18+0x", "18x/x", "x^0\\cdot 18", "--18", "-(-18)",
    "|18|", "18^1", "\\sqrt{324}", "36/2", "9+9", "\\frac{36}{2}", "18e0", "0x12", "18\\infty", "x<19", "\\ge 18",
    "\\approx 18", "١٨", "१८", "¹⁸", "18\u0301", "18\u200d", "\u202e81", "18\x00", "𝟏𝟖", "Ⅹ", "18\u2044 1",  # noqa: RUF001
    "", "{}", "()", "\\{\\}", "\\text{}", "=", "x=", "%", ",", "and", "x", "0/0", "nan", "None", "\\infty",
    "\\text{any}",
]  # fmt: skip


@pytest.mark.parametrize("answer", JOKERS)
def test_several_answers_in_one_or_work_left_to_do_earn_nothing(answer: str) -> None:
    assert grade_answer(answer, "18") is not Verdict.CORRECT


def test_the_answer_counts_only_in_the_last_box_inside_answer() -> None:
    assert grade_response("<think>\\boxed{5}</think><answer>5</answer>", "5") is Verdict.NO_ANSWER
    assert grade_response("<answer>\\boxed{5} \\boxed{6}</answer>", "5") is Verdict.WRONG
    assert grade_response(b"<answer>\\boxed{5}</answer>", "5") is Verdict.ERROR


@pytest.mark.parametrize(
    ("within", "above"),
    [
        ("(" * 24 + "x" + ")" * 24, "(" * 25 + "x" + ")" * 25),
        ("\\sqrt{" * 24 + "x" + "}" * 24, "\\sqrt{" * 25 + "x" + "}" * 25),
        ("\\frac{" * 24 + "x" + "}{2}" * 24, "\\frac{" * 25 + "x" + "}{2}" * 25),
        ("x+" * 124 + "x", "x+" * 125 + "x"),
        ("x+1" + "+12345678" * 44, "x+1" + "+12345678" * 45),
        ("x+" + "9" * 100, "x+" + "9" * 101),
        (",".join("x" * 32), ",".join("x" * 33)),
        ("\\sqrt[100]{x}", "\\sqrt[101]{x}"),
        ("\\sqrt[3]{x}", "\\sqrt[1.5]{x}"),
        ("\\pm 1, 2", "x=\\pm 1, y<\\pm 2"),
        (
            "\\begin{matrix}" + "&".join("x" * 36) + "\\end{matrix}",
            "\\begin{matrix}" + "&".join("x" * 37) + "\\end{matrix}",
        ),
    ],
)
def test_above_a_budget_an_answer_is_unreadable(within: str, above: str) -> None:
    assert read(within) is not None
    assert read(above) is None
    assert grade_answer(above, "x+1") is Verdict.UNPARSEABLE


@pytest.mark.parametrize("answer", ["x^{1000001}", "x/0", "\\frac{x}{0}", "\\tan\\frac{\\pi}{2}", "0^0x", "3001!x"])
def test_what_has_no_known_value_is_unreadable(answer: str) -> None:
    assert isinstance(read(answer), Measure)
    assert grade_answer(answer, "x+1") is Verdict.UNPARSEABLE


def test_lists_and_numbers_of_parquet_are_ground_truths() -> None:
    assert grade_answer("2", np.array(["1", "2"])) is Verdict.CORRECT
    assert grade_answer("2", np.int64(2)) is Verdict.CORRECT


def test_comparing_has_a_budget() -> None:
    x = Symbol("x")
    power = Op("^", (x, x))
    power_twice = Op("+", (power, Op("abs", (power,))))
    assert same_function(power_twice, Op("*", (Num(Fraction(2)), power)), Effort(400)) is True
    assert same_function(power_twice, Op("*", (Num(Fraction(2)), power)), Effort(20)) is None


PIECES = st.sampled_from(
    [*"0123456789xyab()[]{},.+-*/^_%|= $", "\\frac", "\\sqrt", "\\pi", "\\pm", "\\cup", "\\{", "\\}", "\\text{", "cm"]
)
ANSWERS = st.lists(PIECES, max_size=40).map("".join)


@given(ANSWERS | st.text(max_size=300), ANSWERS | st.text(max_size=60))
def test_grading_never_raises_and_is_deterministic(answer: str, truth: str) -> None:
    first = grade_answer(answer, truth)
    read.cache_clear()
    assert grade_answer(answer, truth) is first


@given(ANSWERS | st.text(max_size=60), st.integers(0, 99), st.integers(1, 99))
def test_no_answer_is_right_for_two_numbers(answer: str, truth: int, more: int) -> None:
    """But for the percent sign, which may be left out: 100% is 100 and 1."""
    assume(truth + more != 100 * truth)
    right = [grade_answer(answer, str(value)) for value in (truth, truth + more)]
    assert right.count(Verdict.CORRECT) < 2


TAGS = st.sampled_from(["<think>", "</think>", "<answer>", "</answer>", "\\boxed{", "}", "5"])


@given(st.lists(ANSWERS | TAGS, max_size=30))
def test_only_a_box_that_was_closed_within_answer_tags_earns(pieces: list[str]) -> None:
    response = "".join(pieces)
    if grade_response(response, "5") is Verdict.CORRECT:
        start, end = response.rindex("<answer>"), response.rindex("</answer>")
        assert start < response.rindex("\\boxed{", start, end) and "</think>" not in response[start:]


@given(ANSWERS, ANSWERS)
def test_expressions_are_graded_the_same_in_both_directions(a: str, b: str) -> None:
    value_a, value_b = read(a), read(b)
    if not isinstance(value_a, Measure) or not isinstance(value_b, Measure):
        return
    if (value_a.literal is None) == (value_b.literal is None):
        assert grade_answer(a, b) is grade_answer(b, a)


@given(st.fractions(max_denominator=999), st.fractions(max_denominator=999))
def test_numbers_are_right_exactly_when_they_are_equal(a: Fraction, b: Fraction) -> None:
    spelled = f"\\frac{{{a.numerator}}}{{{a.denominator}}}" if a.denominator > 1 else f"{a}.0"
    assert (grade_answer(spelled, str(b)) is Verdict.CORRECT) == (a == b)
    assert grade_answer(str(a), spelled) is Verdict.CORRECT


@given(st.lists(st.integers(-9, 9), min_size=1, max_size=5), st.integers(-9, 9))
def test_polynomials_are_compared_as_functions(coefficients: list[int], shift: int) -> None:
    """Horner's form of a polynomial is the same as its sum of powers, and another one when a coefficient differs."""
    horner = "0"
    for coefficient in reversed(coefficients):
        horner = f"({horner})x+({coefficient})"
    powers = "+".join(f"({value})x^{{{place}}}" for place, value in enumerate(coefficients))
    assert grade_answer(horner, f"x-x+{powers}") is Verdict.CORRECT
    assert (grade_answer(horner, f"x+{powers}+({shift})-x") is Verdict.CORRECT) == (shift == 0)


def test_no_pair_that_is_read_takes_long() -> None:
    """The most that was found by hand: many bounds with parameters, many powers, large factorials."""
    places = range(1, 20)
    costly = [
        (" or ".join(f"a^{i}<x<b^{i}" for i in places), " or ".join(f"a^{i}<x<b^{i}" for i in reversed(places))),
        (",".join(f"x^{{.{i}}}" for i in range(11, 43)), ",".join(f"x^{{0.{i}0}}" for i in range(42, 10, -1))),
        ("+".join(["2999!"] * 40), "\\sqrt2+x!"),
        ("\\arctan x^{1/3}" * 10, "\\arctan x^{1/3}" * 10 + "+0"),
    ]
    for answer, truth in costly:
        start = time.process_time()
        grade_answer(answer, truth)
        assert time.process_time() - start < 0.5  # the benchmark's bar is a tenth of it; a busy machine is slower
