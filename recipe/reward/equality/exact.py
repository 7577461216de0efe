# SPDX-License-Identifier: Apache-2.0
"""Exact values: of constants as fractions of bounded size, of rational functions modulo two large primes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from fractions import Fraction

from recipe.reward.grammar.values import ExprNode, Num, Symbol

#: Largest exponent; bits of the largest fraction that is computed; largest factorial; largest binomial.
LARGEST_EXPONENT, MOST_BITS, LARGEST_FACTORIAL, LARGEST_BINOMIAL = 10**6, 20_000, 3000, 10_000
#: Largest degree of a rational function that is compared, for the bound on a false match in docs/REWARDS.md.
LARGEST_DEGREE = 2**40
#: 2^127 - 2721 and 3 * 2^126 - 4285. Each is 2q + 1 with q prime, so that modulo it every number but 0, 1 and -1 has
#: an order of at least q > 2^125: no two powers of one base below LARGEST_EXPONENT have the same residue.
PRIMES = (2**127 - 2721, 3 * 2**126 - 4285)


class UndefinedError(ArithmeticError):
    """The expression has no value here."""


class NotExactError(ArithmeticError):
    """The expression is not rational, or it is above a budget."""


def exact(node: ExprNode) -> Fraction:
    """The value of a constant. Raises NotExactError, and UndefinedError where it has none."""
    if isinstance(node, Num):
        return node.value
    if isinstance(node, Symbol):
        raise NotExactError(node.name)
    kind = node.kind
    if kind not in _EXACT:
        raise NotExactError(kind)
    parts = [exact(part) for part in node.args]
    value = _EXACT[kind](*parts)
    if _bits(value) > MOST_BITS:
        raise NotExactError("above its budget")
    return value


def _bits(value: Fraction) -> int:
    return value.numerator.bit_length() + value.denominator.bit_length()


def _sum(*parts: Fraction) -> Fraction:
    return sum(parts, Fraction(0))


def _product(*parts: Fraction) -> Fraction:
    if sum(_bits(part) for part in parts) > 2 * MOST_BITS:
        raise NotExactError("above its budget")
    return math.prod(parts, start=Fraction(1))


def _quotient(above: Fraction, below: Fraction) -> Fraction:
    if not below:
        raise UndefinedError("division by zero")
    return above / below


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    if not base and exponent <= 0:
        raise UndefinedError("power of zero")
    if exponent.denominator != 1 or abs(exponent) * (_bits(base) - 2) > MOST_BITS:
        raise NotExactError("power")
    if abs(base) == 1:
        return base if exponent.numerator % 2 else Fraction(1)
    return base ** int(exponent) if base else base


def natural(value: Fraction, largest: int) -> int:
    """The number as an index. Raises UndefinedError where it is no natural number, NotExactError above the largest."""
    if value.denominator != 1 or value < 0:
        raise UndefinedError("no natural number")
    if value > largest:
        raise NotExactError("above its budget")
    return int(value)


def _binomial(above: Fraction, below: Fraction) -> Fraction:
    return Fraction(math.comb(natural(above, LARGEST_BINOMIAL), natural(below, LARGEST_BINOMIAL)))


_EXACT: dict[str, Callable[..., Fraction]] = {
    "+": _sum,
    "*": _product,
    "/": _quotient,
    "^": _power,
    "neg": lambda part: -part,
    "abs": abs,
    "floor": lambda part: Fraction(math.floor(part)),
    "ceil": lambda part: Fraction(math.ceil(part)),
    "!": lambda part: Fraction(math.factorial(natural(part, LARGEST_FACTORIAL))),
    "binom": _binomial,
    "max": max,
    "min": min,
}
_RATIONAL = frozenset(("+", "*", "/", "neg"))


def degree(node: ExprNode) -> int:
    """An upper bound of the degrees of numerator and denominator together. Raises NotExactError above the budget."""
    if isinstance(node, Num):
        return 0
    if isinstance(node, Symbol):
        return 1
    if node.kind == "^":
        bound = degree(node.args[0]) * abs(_exponent(node.args[1]))
    else:
        bound = sum(degree(part) for part in node.args)
    if bound > LARGEST_DEGREE:
        raise NotExactError("degree above its budget")
    return bound


def residue(node: ExprNode, point: Mapping[str, int], prime: int) -> int:
    """The value of a rational function modulo a prime.

    Raises NotExactError where it is none, and UndefinedError where it has no value modulo this prime.
    """
    if isinstance(node, Num):
        return _divided(node.value.numerator, node.value.denominator, prime)
    if isinstance(node, Symbol):
        if node.name not in point:
            raise NotExactError(node.name)
        return point[node.name]
    kind = node.kind
    if kind == "^":
        base, exponent = residue(node.args[0], point, prime), _exponent(node.args[1])
        if exponent <= 0 and not base:
            raise UndefinedError("power of zero")
        return pow(base, exponent, prime)
    if kind not in _RATIONAL:
        value = exact(node)
        return _divided(value.numerator, value.denominator, prime)
    parts = [residue(part, point, prime) for part in node.args]
    if kind == "+":
        return sum(parts) % prime
    if kind == "neg":
        return -parts[0] % prime
    if kind == "/":
        return _divided(parts[0], parts[1], prime)
    product = 1
    for part in parts:
        product = product * part % prime
    return product


def _divided(above: int, below: int, prime: int) -> int:
    if below == 1:
        return above % prime
    if not below % prime:
        raise UndefinedError("division by zero")
    return above * pow(below, -1, prime) % prime


def _exponent(node: ExprNode) -> int:
    value = exact(node)
    if value.denominator != 1 or abs(value) > LARGEST_EXPONENT:
        raise NotExactError("exponent")
    return int(value)
