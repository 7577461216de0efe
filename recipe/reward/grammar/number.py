# SPDX-License-Identifier: Apache-2.0
"""A closed grammar of numbers, read into exact rationals.

::

    number    = [sign] magnitude ["%" | "\\%"]
    magnitude = decimal ["/" decimal] | "\\frac" part part
    part      = digit | "{" [sign] decimal "}"
    decimal   = integer ["." {digit}] | "." digit {digit}
    integer   = digit {digit} | 1 to 3 digits, then groups of "," and 3 digits
    sign      = "+" | "-"

Digits are 0 to 9. Nothing is evaluated, and a text above the length budget is no number.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

#: Longest number, in characters: bounds the digits, and so the cost of the exact arithmetic.
LONGEST_NUMBER = 200

_DIGITS = frozenset("0123456789")


@dataclass(frozen=True)
class Number:
    """An exact value; ``percent`` tells that it was written with a percent sign, which is not in the value."""

    value: Fraction
    percent: bool


def parse_number(text: str) -> Number | None:
    """The number that the whole text is, or None."""
    if len(text) > LONGEST_NUMBER:
        return None
    sign, position = _sign(text, 0)
    read = _fraction_command(text, position) if text.startswith("\\frac", position) else _ratio(text, position)
    if read is None:
        return None
    value, position = read
    rest = text[position:]
    if rest not in ("", "%", "\\%"):
        return None
    return Number(sign * value, percent=bool(rest))


def same_number(a: Number, b: Number) -> bool:
    """Equal values. 50% is 1/2; where one side alone has the percent sign, 50% is also 50 ("how many percent?")."""
    hundredth = Fraction(1, 100)
    if a.percent == b.percent:
        return a.value == b.value
    with_sign, without_sign = (a, b) if a.percent else (b, a)
    return without_sign.value in (with_sign.value, with_sign.value * hundredth)


# Each of these reads one rule of the grammar at a position, and returns what it is worth and the position behind it.


def _sign(text: str, position: int) -> tuple[int, int]:
    character = text[position : position + 1]
    return (-1 if character == "-" else 1), position + (1 if character in ("+", "-") and character else 0)


def _ratio(text: str, position: int) -> tuple[Fraction, int] | None:
    read = _decimal(text, position)
    if read is None or not text.startswith("/", read[1]):
        return read
    below = _decimal(text, read[1] + 1)
    if below is None or below[0] == 0:
        return None
    return read[0] / below[0], below[1]


def _fraction_command(text: str, position: int) -> tuple[Fraction, int] | None:
    above = _part(text, position + len("\\frac"))
    below = _part(text, above[1]) if above is not None else None
    if above is None or below is None or below[0] == 0:
        return None
    return above[0] / below[0], below[1]


def _part(text: str, position: int) -> tuple[Fraction, int] | None:
    if text[position : position + 1] in _DIGITS:
        return Fraction(int(text[position])), position + 1
    if not text.startswith("{", position):
        return None
    sign, position = _sign(text, position + 1)
    read = _decimal(text, position)
    if read is None or not text.startswith("}", read[1]):
        return None
    return sign * read[0], read[1] + 1


def _decimal(text: str, position: int) -> tuple[Fraction, int] | None:
    integer, end = _digits(text, position)
    if 1 <= len(integer) <= 3:
        while text.startswith(",", end):
            group, group_end = _digits(text, end + 1)
            if len(group) != 3:
                return None
            integer, end = integer + group, group_end
    decimals = ""
    if text.startswith(".", end):
        decimals, end = _digits(text, end + 1)
    if not integer + decimals:
        return None
    value = Fraction(int(integer + decimals))
    return (value / 10 ** len(decimals) if decimals else value), end


def _digits(text: str, position: int) -> tuple[str, int]:
    end = position
    while end < len(text) and text[end] in _DIGITS:
        end += 1
    return text[position:end], end
