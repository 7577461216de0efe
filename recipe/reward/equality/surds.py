# SPDX-License-Identifier: Apache-2.0
"""Numbers with one square root, exactly: the most frequent values that are no fractions.

Such a number is a + s * sqrt(|b|) with fractions a and b, where s is the sign of b and |b| is no square of a fraction.
Two of them are equal exactly when both parts are.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import NamedTuple

from recipe.reward.equality.exact import MOST_BITS, NotExactError, UndefinedError, exact
from recipe.reward.grammar.values import ExprNode, Op

#: Largest exponent of a power that is multiplied out.
MOST_FACTORS = 64


class Surd(NamedTuple):
    """``square`` is the square of the irrational part, with its sign; 0 where there is none."""

    rational: Fraction
    square: Fraction


def surd(node: ExprNode) -> Surd:
    """The value of a constant. Raises NotExactError where it is no such number, UndefinedError where it has none."""
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
    """The square root of a fraction where that is a fraction, or None."""
    above, below = math.isqrt(value.numerator), math.isqrt(value.denominator)
    return Fraction(above, below) if above**2 == value.numerator and below**2 == value.denominator else None


def _made(rational: Fraction, square: Fraction) -> Surd:
    """The number with these parts, in its one form: a ``square`` with a rational root goes into ``rational``."""
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


def _ratio(dividend: Fraction, divisor: Fraction) -> Fraction:
    """The ratio of two irrational parts, given as their squares. Raises NotExactError where it is no fraction."""
    size = square_root(abs(dividend / divisor))
    if size is None:
        raise NotExactError("two roots")
    return size if (dividend > 0) == (divisor > 0) else -size


def _multiple(factor: Fraction, square: Fraction) -> Fraction:
    """The square of a multiple of an irrational part."""
    return square * factor * abs(factor)


def _plus(a: Surd, b: Surd) -> Surd:
    rational = a.rational + b.rational
    if not a.square or not b.square:
        return _made(rational, a.square or b.square)
    return _made(rational, _multiple(1 + _ratio(b.square, a.square), a.square))


def _times(a: Surd, b: Surd) -> Surd:
    if not b.square:
        a, b = b, a
    if not a.square:
        return _made(a.rational * b.rational, _multiple(a.rational, b.square))
    if not a.rational and not b.rational:
        sign = 1 if (a.square > 0) == (b.square > 0) else -1
        return _made(Fraction(0), sign * abs(a.square * b.square))
    ratio = _ratio(b.square, a.square)
    rational = a.rational * b.rational + ratio * abs(a.square)
    return _made(rational, _multiple(a.rational * ratio + b.rational, a.square))


def _inverse(surd: Surd) -> Surd:
    norm = surd.rational**2 - abs(surd.square)
    if not norm:
        raise UndefinedError("division by zero")
    return _made(surd.rational / norm, _multiple(-1 / norm, surd.square))


def _power(base: Surd, exponent: Fraction) -> Surd:
    if exponent.denominator != 1 or abs(exponent) > MOST_FACTORS:
        raise NotExactError("power")
    power = Surd(Fraction(1), Fraction(0))
    for _ in range(abs(int(exponent))):
        power = _times(power, base)
    return _inverse(power) if exponent < 0 else power
