# SPDX-License-Identifier: Apache-2.0
"""Real values of an expression at a point. What is only a rounding error is never taken for a value.

Every value is computed twice, in ``SHORT`` and in ``LONG`` digits, side by side. Where a zero would matter (below a
fraction, under an even root, in a logarithm, at a pole, at a step of floor) and at the end, the two must agree in
``RESOLVED`` digits: the value is then called resolved. The difference of two equal numbers is not, as all its digits
are rounding.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Callable, Mapping
from decimal import Context, Decimal, DivisionByZero, InvalidOperation, Overflow, Underflow
from fractions import Fraction
from functools import cached_property
from typing import NamedTuple

from recipe.reward.equality import series
from recipe.reward.equality.exact import (
    LARGEST_BINOMIAL,
    LARGEST_EXPONENT,
    LARGEST_FACTORIAL,
    NotExactError,
    UndefinedError,
    exact,
)  # fmt: skip
from recipe.reward.grammar.values import ExprNode, Num, Op, Symbol

SHORT, LONG, RESOLVED = 40, 60, 25
#: Most factors of a binomial; largest argument of a trigonometric function, and of an exponential one.
MOST_FACTORS, LARGEST_ANGLE, LARGEST_EXPONENTIAL = 300, 10**6, 10**5

_TRAPS = [InvalidOperation, DivisionByZero, Overflow, Underflow]
_CONTEXTS = tuple(Context(prec=digits, Emax=10**6, Emin=-(10**6), traps=_TRAPS) for digits in (SHORT, LONG))
_NEAR_A_STEP = Decimal("1e-15")
_ONE = (Decimal(1), Decimal(1))
_ZERO = (Decimal(0), Decimal(0))


class UnknownError(ArithmeticError):
    """There may be a value here, but it costs more than a budget, or is smaller than what can be told from rounding."""


Point = Mapping[str, Decimal]
_Values = tuple[Decimal, Decimal]


class Effort:
    """What one comparison may still cost: ``budget`` counts functions, and a simple step is a tenth of one.

    It also holds what the steps of a comparison share: the values of functions at the current point, and the generator
    that points are drawn from, whose seed is made of the compared ``texts``, in any order.
    """

    def __init__(self, budget: float, *texts: str) -> None:
        self.budget = budget
        self.texts = texts
        self.point: Point = {}
        self.known: dict[ExprNode, _Values] = {}

    @cached_property
    def generator(self) -> random.Random:
        """What the points are drawn from."""
        seed = "\n".join(sorted(self.texts)).encode("utf-8", "surrogatepass")
        return random.Random(int.from_bytes(hashlib.blake2b(seed, digest_size=16).digest(), "big"))

    def at(self, point: Point) -> None:
        """Makes ``point`` the current one, and forgets what is known of another."""
        if point is not self.point:
            self.point, self.known = point, {}

    def spend(self, amount: float) -> None:
        """Raises UnknownError when nothing is left."""
        self.budget -= amount
        if self.budget < 0:
            raise UnknownError("effort")


class Real(NamedTuple):
    """A real value, computed in both precisions."""

    short: Decimal
    long: Decimal


def value_at(node: ExprNode, point: Point, effort: Effort) -> Real:
    """The value of an expression where its variables have the values of ``point``, resolved.

    Raises UndefinedError where there is no real value, UnknownError where it is not known.
    """
    effort.at(point)
    try:
        value = _value(node, point, effort)
    except (Overflow, Underflow, InvalidOperation) as error:
        raise UnknownError(str(error)) from None
    except DivisionByZero:
        raise UndefinedError("division by zero") from None
    return Real(*_resolved(value))


def close(a: Real, b: Real) -> bool:
    """Whether two resolved values agree in RESOLVED + 5 digits."""
    largest = max(a.long.copy_abs(), b.long.copy_abs())
    return _CONTEXTS[1].subtract(a.long, b.long).copy_abs() <= largest.scaleb(-RESOLVED - 5, _CONTEXTS[1])


def product(a: Real, b: Real) -> Real:
    """The product of two values."""
    return Real(*_each(Context.multiply, a, b))


def _resolved(value: _Values) -> _Values:
    short, long = value
    if _CONTEXTS[1].subtract(short, long).copy_abs() > long.copy_abs().scaleb(-RESOLVED, _CONTEXTS[1]):
        raise UnknownError("below the precision")
    return value


def _sign(value: _Values) -> int:
    long = _resolved(value)[1]
    return (long > 0) - (long < 0)


def _each(function: Callable[..., Decimal], *values: _Values) -> _Values:
    """A function of decimals in both precisions; it takes the context first."""
    short, long = _CONTEXTS
    return function(short, *(value[0] for value in values)), function(long, *(value[1] for value in values))


def _of_fraction(value: Fraction) -> _Values:
    above, below = Decimal(value.numerator), Decimal(value.denominator)
    return _CONTEXTS[0].divide(above, below), _CONTEXTS[1].divide(above, below)


def _value(node: ExprNode, point: Point, effort: Effort) -> _Values:
    effort.spend(0.1)
    if isinstance(node, Num):
        return _of_fraction(node.value)
    if isinstance(node, Symbol):
        if node.name == "\\pi":
            return series.PI, series.PI
        if node.name == "e":
            return series.E, series.E
        value = point[node.name]
        return value, value
    kind = node.kind
    if kind == "^":
        return _power(node, point, effort)
    parts = [_value(part, point, effort) for part in node.args]
    if kind == "+" or kind == "*":
        combine = Context.add if kind == "+" else Context.multiply
        total = parts[0]
        for part in parts[1:]:
            total = _each(combine, total, part)
        return total
    if kind == "neg":
        return _each(Context.minus, parts[0])
    if kind == "/":
        if not _sign(parts[1]):
            raise UndefinedError("division by zero")
        return _each(Context.divide, *parts)
    if kind == "abs":
        return _each(Context.abs, parts[0])
    if kind == "root" and parts[0][1] == 2:
        return _root(2, parts[1])
    values = effort.known.get(node)
    if values is None:
        effort.spend(2 if kind == "root" else 1)
        values = _root(int(parts[0][1]), parts[1]) if kind == "root" else FUNCTIONS[kind](*parts)
        effort.known[node] = values
    return values


def _power(node: Op, point: Point, effort: Effort) -> _Values:
    base = _value(node.args[0], point, effort)
    try:
        exponent = exact(node.args[1])
    except NotExactError:
        effort.spend(2)
    else:
        effort.spend(0.1 if exponent.denominator == 1 else 2)
        return _rational_power(base, exponent)
    power = _value(node.args[1], point, effort)
    sign = _sign(base)
    if sign < 0:
        integer = _integer(power)
        if integer is None:
            raise UndefinedError("power of a negative number")
        return _rational_power(base, Fraction(integer))
    if sign == 0:
        if _sign(power) > 0:
            return _ZERO
        raise UndefinedError("power of zero")
    return _each(Context.power, base, power)


def _rational_power(base: _Values, exponent: Fraction) -> _Values:
    if abs(exponent) > LARGEST_EXPONENT:
        raise UnknownError("exponent above its budget")
    if exponent == 1:
        return base
    if exponent > 0 and exponent.denominator == 1:
        integer = Decimal(exponent.numerator)
        return _each(lambda context, value: context.power(value, integer), base)
    sign = _sign(base)
    if sign == 0:
        if exponent > 0:
            return _ZERO
        raise UndefinedError("power of zero")
    if exponent == 0:
        return _ONE
    if sign < 0 and exponent.denominator % 2 == 0:
        raise UndefinedError("power of a negative number")
    size = _each(Context.abs, base)
    size = _each(Context.power, size, _of_fraction(exponent))
    return _each(Context.minus, size) if sign < 0 and exponent.numerator % 2 else size


def _root(degree: int, value: _Values) -> _Values:
    sign = _sign(value)
    if sign < 0 and degree % 2 == 0:
        raise UndefinedError("even root of a negative number")
    if sign == 0:
        return _ZERO
    if degree == 2:
        return _each(Context.sqrt, value)
    root = _each(Context.power, _each(Context.abs, value), _of_fraction(Fraction(1, degree)))
    return _each(Context.minus, root) if sign < 0 else root


def _integer(value: _Values) -> int | None:
    """The integer that a value is, exactly in both precisions; None for any other."""
    short, long = value
    if short != long or long.copy_abs() > LARGEST_EXPONENT or long != long.to_integral_value():
        return None
    return int(long)


def _step(rounding: str) -> Callable[[_Values], _Values]:
    def step(value: _Values) -> _Values:
        long = _resolved(value)[1]
        nearest = long.to_integral_value()
        if value[0] != value[1] and _CONTEXTS[1].subtract(long, nearest).copy_abs() < _NEAR_A_STEP:
            raise UnknownError("at a step")
        integer = long.to_integral_value(rounding)
        return integer, integer

    return step


def _factorial(value: _Values) -> _Values:
    natural = _integer(value)
    if natural is None or natural < 0:
        raise UndefinedError("factorial of what is no natural number")
    if natural > LARGEST_FACTORIAL:
        raise UnknownError("factorial above its budget")
    return _of_fraction(Fraction(math.factorial(natural)))


def _binomial(above: _Values, below: _Values) -> _Values:
    """Where ``above`` is no natural number, the polynomial above (above - 1) … / below! has the value."""
    n, k = _integer(above), _integer(below)
    if k is None or k < 0:
        raise UndefinedError("binomial below which is no natural number")
    if k > MOST_FACTORS or (n is not None and n > LARGEST_BINOMIAL):
        raise UnknownError("binomial above its budget")
    if n is not None and n >= 0:
        return _of_fraction(Fraction(math.comb(n, k)))
    product = _ONE
    for place in range(k):
        factor = _each(lambda context, value, place=place: context.subtract(value, Decimal(place)), above)
        product = _each(Context.multiply, product, factor)
    return _each(Context.divide, product, _of_fraction(Fraction(math.factorial(k))))


def _logarithm(base: _Values, value: _Values) -> _Values:
    if _sign(base) <= 0 or _sign(value) <= 0:
        raise UndefinedError("logarithm of what is not positive")
    below = _each(Context.ln, base)
    if not _sign(below):
        raise UndefinedError("logarithm to the base 1")
    return _each(Context.divide, _each(Context.ln, value), below)


def _angle(value: _Values) -> _Values:
    if value[1].copy_abs() > LARGEST_ANGLE:
        raise UnknownError("angle above its budget")
    return value


def _sine(value: _Values) -> _Values:
    return _each(series.sine, _angle(value))


def _cosine(value: _Values) -> _Values:
    return _each(series.cosine, _angle(value))


def _quotient(above: Callable[[_Values], _Values], below: Callable[[_Values], _Values]) -> Callable[[_Values], _Values]:
    def quotient(value: _Values) -> _Values:
        divisor = below(value)
        if not _sign(divisor):
            raise UndefinedError("at a pole")
        return _each(Context.divide, above(value), divisor)

    return quotient


def _constant_one(value: _Values) -> _Values:
    return _ONE


def _arcsine(value: _Values) -> _Values:
    squared_cosine = _each(lambda context, sine: context.subtract(1, context.multiply(sine, sine)), value)
    sign = _sign(squared_cosine)
    if sign < 0:
        raise UndefinedError("arcsine beyond 1")
    if sign == 0:
        return _each(lambda context, sine: context.multiply(sine, context.divide(series.PI, 2)), value)
    return _each(series.arctangent, _each(Context.divide, value, _each(Context.sqrt, squared_cosine)))


def _arctangent(value: _Values) -> _Values:
    return _each(series.arctangent, value)


def _complement(function: Callable[[_Values], _Values]) -> Callable[[_Values], _Values]:
    return lambda value: _each(
        lambda context, angle: context.subtract(context.divide(series.PI, 2), angle), function(value)
    )


def _reciprocal(value: _Values) -> _Values:
    if not _sign(value):
        raise UndefinedError("division by zero")
    return _each(Context.divide, _ONE, value)


def _hyperbolic(sign: int) -> Callable[[_Values], _Values]:
    def half_sum(context: Context, exponent: Decimal) -> Decimal:
        growing, shrinking = context.exp(exponent), context.exp(exponent.copy_negate())
        return context.divide(context.add(growing, context.multiply(sign, shrinking)), 2)

    def function(value: _Values) -> _Values:
        if value[1].copy_abs() > LARGEST_EXPONENTIAL:
            raise UnknownError("exponential above its budget")
        return _each(half_sum, value)

    return function


_SINH, _COSH = _hyperbolic(-1), _hyperbolic(1)
_ARCCOSINE = _complement(_arcsine)

#: Every operation that is neither arithmetic nor a power, by its kind.
FUNCTIONS: dict[str, Callable[..., _Values]] = {
    "log": _logarithm,
    "sin": _sine,
    "cos": _cosine,
    "tan": _quotient(_sine, _cosine),
    "cot": _quotient(_cosine, _sine),
    "sec": _quotient(_constant_one, _cosine),
    "csc": _quotient(_constant_one, _sine),
    "arcsin": _arcsine,
    "arccos": _ARCCOSINE,
    "arctan": _arctangent,
    "arccot": _complement(_arctangent),
    "arcsec": lambda value: _ARCCOSINE(_reciprocal(value)),
    "arccsc": lambda value: _arcsine(_reciprocal(value)),
    "sinh": _SINH,
    "cosh": _COSH,
    "tanh": _quotient(_SINH, _COSH),
    "coth": _quotient(_COSH, _SINH),
    "floor": _step("ROUND_FLOOR"),
    "ceil": _step("ROUND_CEILING"),
    "!": _factorial,
    "binom": _binomial,
    "max": lambda *values: max(values, key=lambda value: _resolved(value)[1]),
    "min": lambda *values: min(values, key=lambda value: _resolved(value)[1]),
}
