# SPDX-License-Identifier: Apache-2.0
"""Numbers with one square root, exactly: the most frequent values that are no fractions.

A number here is a + s * sqrt(|b|) with fractions a and b, where s is the sign of b and |b| no square of a fraction.
Two such numbers are equal exactly when both parts are.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import NamedTuple

from recipe.reward.equality.exact import MOST_BITS, NotExactError, UndefinedError, exact
from recipe.reward.grammar.values import Node, Op

#: Largest exponent of a power that is multiplied out.
MOST_FACTORS = 64


class Surd(NamedTuple):
    """``square`` is the square of the irrational part, with its sign; 0 where there is none."""

    rational: Fraction
    square: Fraction


def surd(node: Node) -> Surd:
    """The value of a constant. Raises NotExactError where it is no such number, UndefinedError where it is none."""
    try:
        return Surd(exact(node), Fraction(0))
    except NotExactError:
        if not isinstance(node, Op):
            raise
    kind = node.kind
    if kind == "root":
        return _root(node)
    if kind == "neg":
        part = surd(node.args[0])
        return Surd(-part.rational, -part.square)
    if kind == "^":
        return _power(surd(node.args[0]), exact(node.args[1]))
    if kind not in ("+", "*", "/"):
        raise NotExactError(kind)
    parts = [surd(part) for part in node.args]
    if kind == "/":
        return _times(parts[0], _inverse(parts[1]))
    total = parts[0]
    for part in parts[1:]:
        total = _plus(total, part) if kind == "+" else _times(total, part)
    return total


def square_root(value: Fraction) -> Fraction | None:
    """The root of the square of a fraction, or None."""
    above, below = math.isqrt(value.numerator), math.isqrt(value.denominator)
    return Fraction(above, below) if above**2 == value.numerator and below**2 == value.denominator else None


def _made(rational: Fraction, square: Fraction) -> Surd:
    if square.numerator.bit_length() + square.denominator.bit_length() + rational.numerator.bit_length() > MOST_BITS:
        raise NotExactError("above its budget")
    root = square_root(abs(square))
    if root is None:
        return Surd(rational, square)
    return Surd(rational + (root if square > 0 else -root), Fraction(0))


def _root(node: Op) -> Surd:
    degree, inside = exact(node.args[0]), exact(node.args[1])
    if degree != 2:
        raise NotExactError("root")
    if inside < 0:
        raise UndefinedError("root of a negative number")
    return _made(Fraction(0), inside)


def _ratio(part: Fraction, of: Fraction) -> Fraction:
    """The first of two irrational parts divided by the second. Raises NotExactError where that is no fraction."""
    size = square_root(abs(part / of))
    if size is None:
        raise NotExactError("two roots")
    return size if (part > 0) == (of > 0) else -size


def _multiple(factor: Fraction, square: Fraction) -> Fraction:
    return square * factor * abs(factor)


def _plus(one: Surd, other: Surd) -> Surd:
    rational = one.rational + other.rational
    if not one.square or not other.square:
        return _made(rational, one.square or other.square)
    return _made(rational, _multiple(1 + _ratio(other.square, one.square), one.square))


def _times(one: Surd, other: Surd) -> Surd:
    if not other.square:
        one, other = other, one
    if not one.square:
        return _made(one.rational * other.rational, _multiple(one.rational, other.square))
    if not one.rational and not other.rational:
        sign = 1 if (one.square > 0) == (other.square > 0) else -1
        return _made(Fraction(0), sign * abs(one.square * other.square))
    ratio = _ratio(other.square, one.square)
    rational = one.rational * other.rational + ratio * abs(one.square)
    return _made(rational, _multiple(one.rational * ratio + other.rational, one.square))


def _inverse(one: Surd) -> Surd:
    norm = one.rational**2 - abs(one.square)
    if not norm:
        raise UndefinedError("division by zero")
    return _made(one.rational / norm, _multiple(-1 / norm, one.square))


def _power(base: Surd, exponent: Fraction) -> Surd:
    if exponent.denominator != 1 or abs(exponent) > MOST_FACTORS:
        raise NotExactError("power")
    power = Surd(Fraction(1), Fraction(0))
    for _ in range(abs(int(exponent))):
        power = _times(power, base)
    return _inverse(power) if exponent < 0 else power
