# SPDX-License-Identifier: Apache-2.0
"""Whether two expressions are the same function, or proportional: exactly where that is possible, else at points.

Constants of bounded size are compared as fractions, or as numbers with one square root. Rational functions are compared
modulo two primes at random residues, with pi and e as variables; everything else as real values at random points, and
there the domain counts too: where one of the two is defined and the other is not, they differ. What has no value
anywhere is equal to nothing. docs/REWARDS.md bounds the probability of a false match.
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
from recipe.reward.equality.reals import Effort, Pair, Point, UnknownError, close, product, value_at
from recipe.reward.equality.rests import rests
from recipe.reward.equality.surds import surd
from recipe.reward.grammar.values import CONSTANTS, Node, Num, Op, symbols

#: Points at which expressions with variables must agree where all others are above a budget, and where there were no
#: others because the effort was spent.
FEWEST_POINTS, ENOUGH_POINTS = 3, 6
#: Two points at which a function that is no constant hardly has the same value.
_STARTS = (10**9 + 7, 10**12 + 39)


def same_function(a: Node, b: Node, effort: Effort) -> bool | None:
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
        if any(one != other for one, other, _ in _residues(a, b, effort)):
            return False
        degree(a)
        degree(b)
        return True
    except (NotExactError, UndefinedError):
        same = _same_values(a, b, effort)
        return False if same and _rests_differ(a, b, effort) else same


def _rests_differ(a: Node, b: Node, effort: Effort) -> bool:
    """Whether two expressions that seem to be the same differ in a part that is rational."""
    for one, other in rests(a, b):
        try:
            return any(value != wanted for value, wanted, _ in _residues(one, other, effort))
        except (NotExactError, UndefinedError):
            continue
    return False


def proportional(a: Node, b: Node, effort: Effort, positive: bool = False) -> bool | None:
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
        of_prime = [(one, other) for one, other, modulus in residues if modulus == prime]
        first, second = of_prime[0]
        if not first or not second:
            return None
        if any((one * second - other * first) % prime for one, other in of_prime):
            return False
    return True


def varies(node: Node) -> bool:
    """Whether this is a rational function that is known not to be a constant: then it is equal to no number."""
    names = sorted(symbols(node))
    try:
        first, other = (
            residue(node, {name: place + start for place, name in enumerate(names)}, PRIMES[0]) for start in _STARTS
        )
    except (NotExactError, UndefinedError):
        return False
    return bool(names) and first != other


def constant_value(node: Node, effort: Effort) -> Pair | None:
    """The real value of an expression without variables, or None."""
    try:
        return value_at(node, {}, effort)
    except (UndefinedError, UnknownError, KeyError):
        return None


def _of_one_base(a: Node, b: Node) -> tuple[Node, Node] | None:
    """The exponents of two powers of one positive constant that is not 1, where a power is too large for a value."""
    if not (isinstance(a, Op) and isinstance(b, Op) and a.kind == b.kind == "^"):
        return None
    try:
        base, other = exact(a.args[0]), exact(b.args[0])
        large = max(abs(exact(a.args[1])), abs(exact(b.args[1])))
    except (NotExactError, UndefinedError):
        return (a.args[1], b.args[1]) if _is_tower(a) and _is_tower(b) and a.args[0] == b.args[0] else None
    usable = base == other and base > 0 and base != 1 and large > 1000
    return (a.args[1], b.args[1]) if usable else None


def _is_tower(node: Op) -> bool:
    """Whether this is a number above 1 to the power of a power of numbers."""
    base, exponent = node.args
    return (
        isinstance(base, Num)
        and base.value > 1
        and isinstance(exponent, Op)
        and exponent.kind == "^"
        and not symbols(exponent)
    )


def _residues(a: Node, b: Node, effort: Effort) -> Iterator[tuple[int, int, int]]:
    """The residues of both at random points, each with its prime. Raises where one is no rational function."""
    names = sorted(symbols(a) | symbols(b) | CONSTANTS)
    for prime in PRIMES:
        for point in residue_points(names, prime, effort.generator):
            yield residue(a, point, prime), residue(b, point, prime), prime


def _same_values(a: Node, b: Node, effort: Effort, ratio: bool = False, positive: bool = False) -> bool | None:
    names = sorted(symbols(a) | symbols(b))
    agreed, differ = 0, False
    defined = [False, False]
    first: tuple[Pair, Pair] | None = None
    whole = not ratio and bool(names) and of_whole_numbers(b)
    for one, other in _values(a, b, names, effort, whole):
        defined = [defined[0] or one is not None, defined[1] or other is not None]
        if one is None or other is None:
            # Formulas for whole numbers may differ in where they begin.
            differ = differ or (one is not other and not whole)
        elif ratio:
            if not one.long or not other.long:
                differ = differ or bool(one.long) != bool(other.long)
                continue
            if positive and (one.long > 0) != (other.long > 0):
                return False
            first = first or (one, other)
            if not close(product(one, first[1]), product(other, first[0])):
                return False
            agreed += 1
        elif not close(one, other):
            return False
        else:
            agreed += 1
        if differ and all(defined):
            return False
    if not all(defined):
        return None
    fewest = ENOUGH_POINTS if effort.left < 0 else FEWEST_POINTS
    return True if agreed >= (fewest if names else 1) and not differ else None


def _values(
    a: Node, b: Node, names: Sequence[str], effort: Effort, whole: bool
) -> Iterator[tuple[Pair | None, Pair | None]]:
    """The values of both at each point where they are known; None where one is not defined."""
    rng = effort.generator
    for point in whole_points(names, rng) if whole else real_points((a, b), names, rng):
        try:
            yield _or_none(a, point, effort), _or_none(b, point, effort)
        except UnknownError:
            if effort.left < 0:
                return


def _or_none(node: Node, point: Point, effort: Effort) -> Pair | None:
    try:
        return value_at(node, point, effort)
    except UndefinedError:
        return None
