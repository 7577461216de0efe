# SPDX-License-Identifier: Apache-2.0
"""The grammar of numbers: what it reads, what it refuses, and that it is exact."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recipe.reward.grammar.number import LONGEST_NUMBER, Number, parse_number, same_number


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("007", 7),
        ("-12", -12),
        ("+3", 3),
        ("1,234,567", 1234567),
        ("3.", 3),
        (".5", Fraction(1, 2)),
        ("1,000.25", Fraction(4001, 4)),
        ("6/4", Fraction(3, 2)),
        ("-1/2", Fraction(-1, 2)),
        ("\\frac{3}{4}", Fraction(3, 4)),
        ("-\\frac{3}{4}", Fraction(-3, 4)),
        ("\\frac{-3}{4}", Fraction(-3, 4)),
        ("\\frac12", Fraction(1, 2)),
        ("\\frac1{20}", Fraction(1, 20)),
        ("\\frac{0.5}{2}", Fraction(1, 4)),
    ],
)
def test_numbers_are_read_exactly(text: str, value: Fraction) -> None:
    assert parse_number(text) == Number(Fraction(value), percent=False)


@pytest.mark.parametrize("text", ["50%", "50\\%"])
def test_percent_sign_is_kept_apart(text: str) -> None:
    assert parse_number(text) == Number(Fraction(50), percent=True)


@pytest.mark.parametrize(
    "text",
    [
        *("", "+", "-", ".", "-.", "--1", "1-", "1+1", "2^10", "9**9", "1e5", "0x10", "1_000", "inf", "nan", "None"),
        *("1,23", "1234,567", "1,", ",1", "12,34,567", "1.2.3", "1/0", "1/", "/2", "1//2", "1/-2", "1/2/3", "1 2"),
        *("\\frac", "\\frac1", "\\frac{1}", "\\frac{1}{0}", "\\frac{1}{2", "\\frac{}{2}", "\\frac{1}{2}3", "\\fracx2"),
        *("%", "5%%", "٣", "²", "1\x00", "__import__('os')", "9" * (LONGEST_NUMBER + 1)),
    ],
)
def test_everything_else_is_no_number(text: str) -> None:
    assert parse_number(text) is None


@given(st.integers(-(10**80), 10**80), st.integers(1, 10**80))
def test_fractions_of_any_size_come_back(above: int, below: int) -> None:
    value = Fraction(above, below)
    for text in (f"{above}/{below}", f"\\frac{{{above}}}{{{below}}}"):
        number = parse_number(text)
        assert number is not None and number.value == value


@given(st.integers(-(10**15), 10**15), st.integers(0, 10**6))
def test_thousands_commas_do_not_change_the_value(integer: int, decimals: int) -> None:
    with_commas, without = parse_number(f"{integer:,}.{decimals}"), parse_number(f"{integer}.{decimals}")
    assert with_commas is not None and with_commas == without


@given(st.text(alphabet="0123456789+-.,/%\\{}frac ", max_size=30), st.text(max_size=30))
def test_reading_never_raises_and_equality_is_symmetric(first: str, second: str) -> None:
    a, b = parse_number(first), parse_number(second)
    if a is not None and b is not None:
        assert same_number(a, b) == same_number(b, a)
    if a is not None:
        assert same_number(a, a)


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [("50%", "0.5", True), ("50%", "50", True), ("50%", "50\\%", True), ("50%", "5", False), ("0.5%", "50%", False)],
)
def test_percent_against_plain(a: str, b: str, same: bool) -> None:
    number_a, number_b = parse_number(a), parse_number(b)
    assert number_a is not None and number_b is not None
    assert same_number(number_a, number_b) == same_number(number_b, number_a) == same
