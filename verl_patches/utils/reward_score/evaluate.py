# SPDX-License-Identifier: Apache-2.0
"""Values of an expression at fixed points, by which two expressions are compared.

Without roots and ``\\pi``, an expression is a rational function over the rationals. It is evaluated modulo the prime
2**61 - 1 at ``POINTS`` points: the cost does not grow with the values, and different functions of degree d agree at one
point with probability d / 2**61. With roots or ``\\pi`` it is evaluated in decimals of ``DIGITS`` digits, at positive
points and a negative one, and values are the same within a relative error of 10**-``SAME_DIGITS``.
"""

from __future__ import annotations

import hashlib
from decimal import Context, Decimal, DecimalException, DivisionByZero, InvalidOperation, Overflow
from functools import lru_cache

from verl_patches.utils.reward_score.values import Node, Num, Op, Symbol

PRIME = 2**61 - 1
POINTS, DECIMAL_POINTS = 3, 3
DIGITS, SAME_DIGITS = 50, 32
#: Largest exponent in the exact and in the decimal evaluation; most powers and roots of an expression in decimals.
LARGEST_EXPONENT, LARGEST_DECIMAL_EXPONENT = 10**6, 1000
MOST_POWERS = 10

_PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494459230781640628620899862803")
_CONTEXT = Context(prec=DIGITS, Emax=9999, Emin=-9999, traps=[InvalidOperation, DivisionByZero, Overflow])


class NoValueError(ArithmeticError):
    """The expression has no value here, or it is above a budget."""


@lru_cache(maxsize=16384)
def rational_values(node: Node) -> tuple[int, ...] | None:
    """The residues at all points, or None where there is a root, ``\\pi``, or no value at a point."""
    try:
        return tuple(_residue(node, point) for point in range(POINTS))
    except NoValueError:
        return None


def same_function(a: Node, b: Node) -> bool | None:
    """Whether two expressions agree at every point, or None when one of them cannot be evaluated."""
    if a == b:
        return True
    left, right = rational_values(a), rational_values(b)
    if left is not None and right is not None:
        return left == right
    if _powers(a) > MOST_POWERS or _powers(b) > MOST_POWERS:
        return None
    seen = False
    for point in range(DECIMAL_POINTS):
        one, other = decimal_value(a, point), decimal_value(b, point)
        if one is None and other is None:
            continue
        if one is None or other is None or not _close(one, other):
            return False
        seen = True
    return True if seen else None


@lru_cache(maxsize=16384)
def decimal_value(node: Node, point: int) -> Decimal | None:
    """The value at one point, or None where the expression has no real value within the budgets."""
    try:
        return _decimal(node, point)
    except (NoValueError, DecimalException):
        return None


def _close(a: Decimal, b: Decimal) -> bool:
    largest = max(_CONTEXT.abs(a), _CONTEXT.abs(b), Decimal(1).scaleb(-DIGITS))
    return _CONTEXT.abs(_CONTEXT.subtract(a, b)) <= _CONTEXT.multiply(largest, Decimal(1).scaleb(-SAME_DIGITS))


def _powers(node: Node) -> int:
    if not isinstance(node, Op):
        return 0
    return (node.kind in ("^", "root")) + sum(_powers(part) for part in node.args)


@lru_cache(maxsize=1024)
def _digest(name: str, point: int) -> int:
    return int.from_bytes(hashlib.blake2b(f"{point} {name}".encode(), digest_size=8).digest(), "big")


def _residue(node: Node, point: int) -> int:
    if isinstance(node, Num):
        return node.value.numerator * pow(node.value.denominator, -1, PRIME) % PRIME
    if isinstance(node, Symbol):
        if node.name == "\\pi":
            raise NoValueError("not rational")
        return _digest(node.name, point) % PRIME
    if node.kind == "^":
        base, exponent = _residue(node.args[0], point), _integer(node.args[1])
        if exponent < 0 and base == 0:
            raise NoValueError("division by zero")
        return pow(base, exponent, PRIME)
    if node.kind in ("root", "abs"):
        raise NoValueError("not rational")
    parts = [_residue(part, point) for part in node.args]
    if node.kind == "+":
        return sum(parts) % PRIME
    if node.kind == "neg":
        return -parts[0] % PRIME
    if node.kind == "*":
        product = 1
        for part in parts:
            product = product * part % PRIME
        return product
    if parts[1] == 0:
        raise NoValueError("division by zero")
    return parts[0] * pow(parts[1], -1, PRIME) % PRIME


def _integer(node: Node) -> int:
    """The value of an exponent that is an integer as written: a number, with or without a sign."""
    sign = 1
    if isinstance(node, Op) and node.kind == "neg":
        sign, node = -1, node.args[0]
    if not isinstance(node, Num) or node.value.denominator != 1 or abs(node.value) > LARGEST_EXPONENT:
        raise NoValueError("no integer exponent")
    return sign * int(node.value)


def _decimal(node: Node, point: int) -> Decimal:
    if isinstance(node, Num):
        return _CONTEXT.divide(Decimal(node.value.numerator), Decimal(node.value.denominator))
    if isinstance(node, Symbol):
        if node.name == "\\pi":
            return _PI
        # Between 1/2 and 5/2, so that powers stay small; the last point is negative, for the sign of a root.
        value = _CONTEXT.add(Decimal("0.5"), _CONTEXT.divide(Decimal(_digest(node.name, point)), Decimal(2**63)))
        return _CONTEXT.minus(value) if point == DECIMAL_POINTS - 1 else value
    parts = [_decimal(part, point) for part in node.args]
    if node.kind in ("+", "*"):
        combine = _CONTEXT.add if node.kind == "+" else _CONTEXT.multiply
        total = parts[0]
        for part in parts[1:]:
            total = combine(total, part)
        return total
    if node.kind == "neg":
        return _CONTEXT.minus(parts[0])
    if node.kind == "abs":
        return _CONTEXT.abs(parts[0])
    if node.kind == "/":
        return _CONTEXT.divide(parts[0], parts[1])
    return _root(int(parts[0]), parts[1]) if node.kind == "root" else _power(parts[0], parts[1])


def _root(degree: int, value: Decimal) -> Decimal:
    if value < 0 and degree % 2 == 0:
        raise NoValueError("even root of a negative number")
    if value == 0:
        return value
    if degree == 2:
        return _CONTEXT.sqrt(value)
    root = _CONTEXT.power(_CONTEXT.abs(value), _CONTEXT.divide(Decimal(1), Decimal(degree)))
    return _CONTEXT.minus(root) if value < 0 else root


def _power(base: Decimal, exponent: Decimal) -> Decimal:
    if abs(exponent) > LARGEST_DECIMAL_EXPONENT:
        raise NoValueError("exponent above its budget")
    if base < 0 and exponent != exponent.to_integral_value():
        raise NoValueError("fractional power of a negative number")
    return _CONTEXT.power(base, exponent)
