# SPDX-License-Identifier: Apache-2.0
"""Whether two expressions are the same function, or proportional: exactly where that is possible, else at points.

1. Constants of bounded size are compared as fractions, or as numbers with one square root.
2. Rational functions are compared modulo two primes at random residues, with pi and e as variables.
3. All others are compared as real values at random points. There the domain counts too: where one of the two is defined
   and the other is not, they differ.

What has no value anywhere is equal to nothing. docs/REWARDS.md bounds the probability of a false match.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from recipe.reward.equality.exact import PRIMES, NotExactError, UndefinedError, degree, exact, residue
from recipe.reward.equality.points import (
    of_whole_numbers,
    real_points,
    residue_points,
    whole_points,
)
from recipe.reward.equality.reals import Effort, Point, Real, UnknownError, close, product, value_at
from recipe.reward.equality.rests import rests
from recipe.reward.equality.surds import surd
from recipe.reward.grammar.values import CONSTANTS, ExprNode, Num, Op, symbols

#: At so many points at least must expressions with variables agree: where all points were tried, and where the effort
#: was spent before that.
FEWEST_POINTS, ENOUGH_POINTS = 3, 6
#: Coordinates of two points, at which only a constant is likely to have one value.
_STARTS = (10**9 + 7, 10**12 + 39)
#: Powers of one base are compared by their exponents where one of these is larger.
_LARGE_EXPONENT = 1000


def same_function(a: ExprNode, b: ExprNode, effort: Effort) -> bool | None:
    """Whether two expressions have the same value wherever one has any, or None when that cannot be known.

    Where ``b``, the truth, is a function of whole numbers, such as a factorial, only those count.
    """
    try:
        return surd(a) == surd(b)
    except UndefinedError:
        return None
    except NotExactError:
        pass
    if (exponents := _of_one_base(a, b)) is not None:
        return same_function(*exponents, effort)
    try:
        if any(residue_a != residue_b for residue_a, residue_b, _ in _residues(a, b, effort)):
            return False
        degree(a)
        degree(b)
        return True
    except (NotExactError, UndefinedError):
        same = _same_values(a, b, effort)
        return False if same and _rests_differ(a, b, effort) else same


def _rests_differ(a: ExprNode, b: ExprNode, effort: Effort) -> bool:
    """Whether two expressions with the same real values differ in a rational part that is too small to be seen."""
    for rest_a, rest_b in rests(a, b):
        try:
            return any(residue_a != residue_b for residue_a, residue_b, _ in _residues(rest_a, rest_b, effort))
        except (NotExactError, UndefinedError):
            continue
    return False


def proportional(a: ExprNode, b: ExprNode, effort: Effort, positive: bool = False) -> bool | None:
    """Whether ``a`` is ``b`` times a constant that is not 0; with ``positive``, one above 0. None: not known."""
    if positive:
        return _same_values(a, b, effort, ratio=True, positive=True)
    try:
        residues = list(_residues(a, b, effort))
        degree(a)
        degree(b)
    except (NotExactError, UndefinedError):
        return _same_values(a, b, effort, ratio=True)
    for prime in PRIMES:
        of_prime = [(residue_a, residue_b) for residue_a, residue_b, modulus in residues if modulus == prime]
        first_a, first_b = of_prime[0]
        if not first_a or not first_b:
            return None
        if any((residue_a * first_b - residue_b * first_a) % prime for residue_a, residue_b in of_prime):
            return False
    return True


def varies(node: ExprNode) -> bool:
    """Whether this is a rational function that is known not to be a constant: then it is equal to no number."""
    names = sorted(symbols(node))
    try:
        first, second = (
            residue(node, {name: place + start for place, name in enumerate(names)}, PRIMES[0]) for start in _STARTS
        )
    except (NotExactError, UndefinedError):
        return False
    return bool(names) and first != second


def constant_value(node: ExprNode, effort: Effort) -> Real | None:
    """The real value of an expression without variables; None where it has none or it is not known."""
    try:
        return value_at(node, {}, effort)
    except (UndefinedError, UnknownError, KeyError):
        return None


def _of_one_base(a: ExprNode, b: ExprNode) -> tuple[ExprNode, ExprNode] | None:
    """The exponents of two powers that are too large to be computed, where they have one base, above 0 and not 1.

    Then the powers are equal exactly where the exponents are. None for any other two expressions.
    """
    if not (isinstance(a, Op) and isinstance(b, Op) and a.kind == b.kind == "^"):
        return None
    try:
        base_a, base_b = exact(a.args[0]), exact(b.args[0])
        largest = max(abs(exact(a.args[1])), abs(exact(b.args[1])))
    except (NotExactError, UndefinedError):
        return (a.args[1], b.args[1]) if _is_tower(a) and _is_tower(b) and a.args[0] == b.args[0] else None
    decisive = base_a == base_b and base_a > 0 and base_a != 1 and largest > _LARGE_EXPONENT
    return (a.args[1], b.args[1]) if decisive else None


def _is_tower(node: Op) -> bool:
    """Whether this power of a number above 1 has a power of numbers as its exponent, as 2^{3^4} has."""
    base, exponent = node.args
    return (
        isinstance(base, Num)
        and base.value > 1
        and isinstance(exponent, Op)
        and exponent.kind == "^"
        and not symbols(exponent)
    )


def _residues(a: ExprNode, b: ExprNode, effort: Effort) -> Iterator[tuple[int, int, int]]:
    """The residues of both at random points, each with its prime. Raises where one is no rational function."""
    names = sorted(symbols(a) | symbols(b) | CONSTANTS)
    for prime in PRIMES:
        for point in residue_points(names, prime, effort.generator):
            yield residue(a, point, prime), residue(b, point, prime), prime


def _same_values(a: ExprNode, b: ExprNode, effort: Effort, ratio: bool = False, positive: bool = False) -> bool | None:
    """Whether the real values of both agree at random points or, with ``ratio``, have the same ratio at all of them."""
    names = sorted(symbols(a) | symbols(b))
    agreed, differ = 0, False
    defined_a = defined_b = False
    first: tuple[Real, Real] | None = None
    whole_numbers = not ratio and bool(names) and of_whole_numbers(b)
    for value_a, value_b in _values(a, b, names, effort, whole_numbers):
        defined_a, defined_b = defined_a or value_a is not None, defined_b or value_b is not None
        if value_a is None or value_b is None:
            # Formulas for whole numbers may differ in where they begin.
            differ = differ or (value_a is not value_b and not whole_numbers)
        elif ratio:
            if not value_a.long or not value_b.long:
                differ = differ or bool(value_a.long) != bool(value_b.long)
                continue
            if positive and (value_a.long > 0) != (value_b.long > 0):
                return False
            first = first or (value_a, value_b)
            if not close(product(value_a, first[1]), product(value_b, first[0])):
                return False
            agreed += 1
        elif not close(value_a, value_b):
            return False
        else:
            agreed += 1
        if differ and defined_a and defined_b:
            return False
    if not (defined_a and defined_b):
        return None
    fewest = ENOUGH_POINTS if effort.budget < 0 else FEWEST_POINTS
    return True if agreed >= (fewest if names else 1) and not differ else None


def _values(
    a: ExprNode, b: ExprNode, names: Sequence[str], effort: Effort, whole_numbers: bool
) -> Iterator[tuple[Real | None, Real | None]]:
    """The values of both at each point where they are known; None where one is not defined."""
    rng = effort.generator
    for point in whole_points(names, rng) if whole_numbers else real_points((a, b), names, rng):
        try:
            yield _or_none(a, point, effort), _or_none(b, point, effort)
        except UnknownError:
            if effort.budget < 0:
                return


def _or_none(node: ExprNode, point: Point, effort: Effort) -> Real | None:
    try:
        return value_at(node, point, effort)
    except UndefinedError:
        return None
