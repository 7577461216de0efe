# SPDX-License-Identifier: Apache-2.0
"""Equality of expressions: values are values, exact where that is possible, and no two powers fall on one residue."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recipe.reward.equality import exact, series
from recipe.reward.equality.exact import NotExactError, UndefinedError
from recipe.reward.equality.expressions import same_function, varies
from recipe.reward.equality.points import real_points
from recipe.reward.equality.reals import FUNCTIONS, Effort, UnknownError, value_at
from recipe.reward.equality.surds import surd
from recipe.reward.grade import grade_answer
from recipe.reward.grammar.answers import read
from recipe.reward.grammar.values import ExprNode, Measure, Num, Op
from recipe.reward.verdict import Verdict

# Expressions that come to nothing, each by another way.
NOTHING = [
    r"0^{-1}",
    r"\frac{1}{0}",
    r"0^0",
    r"\ln 0",
    r"\log_1 5",
    r"\tan\frac{\pi}{2}",
    r"\cot\pi",
    r"\sqrt{-2}",
    r"\arcsin 2",
    r"(-1)!",
    r"\binom{2}{-1}",
    r"\frac{1}{\sqrt{12}-2\sqrt3}",
    r"(\sqrt{8}-\sqrt2-\sqrt2)^{-1}",
    r"(-2)^{1/2}",
    r"(-2)^\pi",
    r"10^{10^{10}}",
    r"\frac{1}{\sin\pi}",
    r"\frac{1}{\ln 1}",
    r"\frac{1}{(\sqrt2+\sqrt3)^2-5-2\sqrt6}",
]
# Where a value stands, with a truth of the same shape.
PLACES = [
    (r"@", r"\pi"),
    (r"@", r"2"),
    (r"(@,1)", r"(\pi,1)"),
    (r"(@,1)", r"(2,1)"),
    (r"[@,9)", r"[\pi,9)"),
    (r"x=@", r"x=\sqrt2"),
    (r"@\text{ cm}", r"\pi\text{ cm}"),
    (r"@,1", r"\pi,1"),
    (r"\{@\}", r"\{\pi\}"),
    (r"@:1", r"\pi:1"),
    (r"x<@", r"x<\pi"),
    (r"x\in(-\infty,@)", r"x<\pi"),
    (r"\begin{pmatrix}@\\1\end{pmatrix}", r"\begin{pmatrix}\pi\\1\end{pmatrix}"),
    (r"@\approx 3.14", r"\pi"),
    (r"(@)y+x=0", r"x+y=0"),
    (r"x+@", r"x+1"),
    (r"\frac{x}{@}", r"x"),
    (r"f(x)=@", r"f(x)=\pi"),
]


def node(text: str) -> ExprNode:
    value = read(text)
    assert isinstance(value, Measure), text
    return value.node


@pytest.mark.parametrize(("place", "truth"), PLACES)
@pytest.mark.parametrize("nothing", NOTHING)
def test_what_has_no_value_is_unreadable_wherever_it_stands(nothing: str, place: str, truth: str) -> None:
    assert grade_answer(place.replace("@", f"({nothing})"), truth) is Verdict.UNPARSEABLE


def test_what_has_no_value_is_not_even_equal_to_itself_in_another_spelling() -> None:
    assert grade_answer("0^{-1}", "\\frac{1}{0}") is Verdict.UNPARSEABLE


def test_both_moduli_are_safe_primes_beyond_every_exponent() -> None:
    """Fermat's test to many bases, and a size at which the order of every base is out of reach."""
    for prime in exact.PRIMES:
        half = (prime - 1) // 2
        for number in (prime, half):
            assert all(pow(base, number - 1, number) == 1 for base in range(2, 60))
            assert all(number % divisor for divisor in range(2, 2000))
        assert half > 2**125 > exact.LARGEST_EXPONENT**2
        assert all(pow(base, 2, prime) != 1 and pow(base, half, prime) in (1, prime - 1) for base in range(2, 1001))
    assert math.gcd(*exact.PRIMES) == 1


@given(st.integers(2, 1000), st.integers(1, 10**6), st.integers(1, 10**6))
def test_powers_of_one_base_are_equal_when_their_exponents_are(base: int, exponent_a: int, exponent_b: int) -> None:
    a, b = (Op("^", (Num(Fraction(base)), Num(Fraction(exponent)))) for exponent in (exponent_a, exponent_b))
    assert same_function(a, b, Effort(100)) is (exponent_a == exponent_b)


@pytest.mark.parametrize(
    ("function", "value", "expected"),
    [
        (series.sine, "0.5", math.sin(0.5)),
        (series.sine, "-100000.25", math.sin(-100000.25)),
        (series.cosine, "12.5", math.cos(12.5)),
        (series.cosine, "3.2", math.cos(3.2)),
        (series.arctangent, "0.01", math.atan(0.01)),
        (series.arctangent, "-7.5", math.atan(-7.5)),
    ],
)
def test_series_agree_with_the_machine_and_with_themselves(function, value: str, expected: float) -> None:  # type: ignore[no-untyped-def]
    from decimal import Context

    short, long = (function(Context(prec=digits), Decimal(value)) for digits in (40, 60))
    assert float(long) == pytest.approx(expected, rel=1e-12)
    assert abs(short - long) < Decimal("1e-38")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("\\arcsin 1", math.pi / 2),
        ("\\arccos(-1)", math.pi),
        ("\\operatorname{arccot}(1)", math.pi / 4),
        ("\\sec 1", 1 / math.cos(1)),
        ("\\sinh 1", math.sinh(1)),
        ("\\tanh 1", math.tanh(1)),
        ("\\log_2 10", math.log2(10)),
        ("\\log 2", math.log10(2)),
        ("e^{1.5}", math.exp(1.5)),
        ("\\lfloor -2.5\\rfloor", -3),
        ("\\lceil \\pi\\rceil", 4),
        ("\\lfloor\\sqrt{4}\\rfloor", 2),
        ("(-8)^{1/3}", -2),
        ("(-8)^{2/3}", 4),
        ("\\sqrt[3]{-8}", -2),
        ("|\\sin 4|", -math.sin(4)),
        ("5!", 120),
        ("\\binom{7}{3}", 35),
        ("\\binom{1/2}{2}", -0.125),
        ("\\max(1,\\pi)", math.pi),
        ("\\sin 30^\\circ", 0.5),
    ],
)
def test_constants_have_their_values(text: str, value: float) -> None:
    assert float(value_at(node(text), {}, Effort(100)).long) == pytest.approx(value, rel=1e-14)


def test_a_step_of_floor_that_is_not_resolved_is_not_known() -> None:
    with pytest.raises(UnknownError):
        FUNCTIONS["floor"]((Decimal("0." + "9" * 39), Decimal(1)))
    assert FUNCTIONS["floor"]((Decimal(1), Decimal(1))) == (1, 1)


@given(st.fractions(max_denominator=50), st.integers(1, 60), st.fractions(max_denominator=50))
def test_numbers_with_one_root_are_exact(rational: Fraction, inside: int, factor: Fraction) -> None:
    root = Op("root", (Num(Fraction(2)), Num(Fraction(inside))))
    number = Op("+", (Num(rational), Op("*", (Num(factor), root))))
    twice = Op("*", (number, number))
    expanded = Op("+", (Num(rational**2 + factor**2 * inside), Op("*", (Num(2 * rational * factor), root))))
    assert surd(twice) == surd(expanded)
    assert float(surd(number).rational) + math.copysign(
        math.sqrt(abs(surd(number).square)), surd(number).square
    ) == pytest.approx(float(rational) + float(factor) * math.sqrt(inside), rel=1e-9, abs=1e-9)


def test_exact_values_have_budgets() -> None:
    for text in ("2^{20001}", "x", "\\pi", "3001!", "\\sqrt[3]{2}"):
        with pytest.raises(NotExactError):
            surd(node(text))
    for text in ("1/0", "0^0", "\\sqrt{-1}", "(-1)!"):
        with pytest.raises(UndefinedError):
            surd(node(text))


@pytest.mark.parametrize("step", ["2^{-200}", "10^{-99}", "2^{-1000000}"])
@pytest.mark.parametrize(
    "truth", [r"\sqrt{2}", r"\pi", r"3\sqrt{5}-1", "e", r"\pi x", r"\frac{\pi}{7}", r"\sin 1+\sqrt[3]{2}"]
)
def test_the_smallest_difference_of_these_is_seen(truth: str, step: str) -> None:
    assert grade_answer(f"{truth}+{step}", truth) is not Verdict.CORRECT


@pytest.mark.parametrize("factor", ["(1+2^{-200})", "(1-2^{-1000000})", "\\frac{2^{300}}{2^{300}+1}"])
@pytest.mark.parametrize("truth", ["\\sqrt[3]{2}", "\\pi\\sin 1", "\\sqrt{2}x", "\\ln 3"])
def test_the_smallest_factor_is_seen(truth: str, factor: str) -> None:
    assert grade_answer(f"{factor}{truth}", truth) is not Verdict.CORRECT


@pytest.mark.parametrize("number", ["3", "1000", "0.5", "12345", "10^8"])
def test_points_lie_on_both_sides_of_the_numbers_in_an_expression(number: str) -> None:
    assert grade_answer(f"x-{number}", f"|x-{number}|") is Verdict.WRONG
    assert grade_answer(f"{number}-x", f"|x-{number}|") is Verdict.WRONG
    assert grade_answer(f"|{number}-x|", f"|x-{number}|") is Verdict.CORRECT


def test_points_are_drawn_from_the_pair_alone() -> None:
    def drawn(*texts: str) -> list[dict[str, Decimal]]:
        return list(real_points([node("x+y+7")], ["x", "y"], Effort(1, *texts).generator))

    assert drawn("a", "b") == drawn("b", "a") != drawn("a", "c")
    values = [value for point in drawn("a", "b") for value in point.values()]
    assert min(values) < -7 < 7 < max(values) and min(abs(value) for value in values) < 1


def test_a_function_is_told_from_a_constant() -> None:
    assert varies(node("x^2+1")) and varies(node("\\frac{1}{x}"))
    assert not varies(node("x-x+5")) and not varies(node("\\sqrt{x}")) and not varies(node("7"))
