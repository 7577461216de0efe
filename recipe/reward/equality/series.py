# SPDX-License-Identifier: Apache-2.0
"""The functions that the decimal module lacks, by their power series, to the precision of a context."""

from __future__ import annotations

from decimal import Context, Decimal

#: To 90 digits.
PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494459230781640628620899862803482")
E = Decimal("2.71828182845904523536028747135266249775724709369995957496696762772407663035354759457138217")

_EXACT = Context(prec=90)
_QUARTER_TURN = _EXACT.divide(PI, Decimal(2))

#: Digits beyond the context's, for what the summing loses; terms after which a series has converged.
_GUARD, _MOST_TERMS = 8, 200


def _working(context: Context) -> Context:
    return Context(prec=context.prec + _GUARD, Emax=context.Emax, Emin=context.Emin, traps=[])


def sine(context: Context, angle: Decimal) -> Decimal:
    """The sine of an angle in radians, of at most a million."""
    return context.plus(_shifted_sine(_working(context), angle, 0))


def cosine(context: Context, angle: Decimal) -> Decimal:
    """The cosine of an angle in radians, of at most a million."""
    return context.plus(_shifted_sine(_working(context), angle, 1))


def _shifted_sine(context: Context, angle: Decimal, quarter_turns: int) -> Decimal:
    """sin(angle + quarter_turns * pi/2), from the series around the nearest multiple of pi/2."""
    turns = context.divide(angle, _QUARTER_TURN).to_integral_value()
    rest = context.subtract(angle, _EXACT.multiply(turns, _QUARTER_TURN))
    turn = (int(turns) + quarter_turns) % 4
    square = context.minus(context.multiply(rest, rest))
    term = total = rest if turn % 2 == 0 else Decimal(1)
    index = 2 if turn % 2 == 0 else 1
    while term and term.adjusted() > total.adjusted() - context.prec and index < _MOST_TERMS:
        term = context.divide(context.multiply(term, square), index * (index + 1))
        total = context.add(total, term)
        index += 2
    return context.minus(total) if turn >= 2 else total


def arctangent(context: Context, value: Decimal) -> Decimal:
    """The arc tangent, in radians, between -pi/2 and pi/2."""
    working = _working(context)
    if abs(value) > 1:
        rest = _small_arctangent(working, working.divide(1, value))
        quarter = working.divide(PI.copy_sign(value), 2)
        return context.subtract(quarter, rest)
    return context.plus(_small_arctangent(working, value))


def _small_arctangent(context: Context, value: Decimal) -> Decimal:
    """For at most 1: three times halved, then the series."""
    halved = value
    for _ in range(3):
        root = context.sqrt(context.add(1, context.multiply(halved, halved)))
        halved = context.divide(halved, context.add(1, root))
    square = context.minus(context.multiply(halved, halved))
    power = total = halved
    index = 3
    while power and power.adjusted() > total.adjusted() - context.prec and index < _MOST_TERMS:
        power = context.multiply(power, square)
        total = context.add(total, context.divide(power, index))
        index += 2
    return context.multiply(8, total)
