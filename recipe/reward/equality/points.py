# SPDX-License-Identifier: Apache-2.0
"""The points at which two expressions are compared, drawn anew for each pair of answer and truth.

Real points lie on both sides of every number in the expressions, so that expressions which differ only beyond such a
number, or only below zero, differ at a point.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from decimal import Context, Decimal
from fractions import Fraction

from recipe.reward.equality.exact import NotExactError, UndefinedError, exact
from recipe.reward.grammar.values import ExprNode, Op, symbols

#: Points of each kind for one comparison.
RESIDUES, WHOLES = 2, 12
_MOST_BREAKS, _LARGEST_BREAK, _LARGEST_WHOLE = 5, 10**9, 12
#: Binary digits of a coordinate.
_BITS = 60
_CONTEXT = Context(prec=30)
#: Least size, largest size and sign of the coordinates of one point; with sign 0 each coordinate draws its own.
_SCALES: tuple[tuple[float, float, int], ...] = (
    (1, 3, 1), (1, 3, -1), (0.01, 1, 1), (3, 12, 0), (0.01, 1, -1),
    (12, 100, 1), (0.1, 0.9, 0), (3, 100, -1), (1, 3, 0), (5, 40, 1),
)  # fmt: skip


def residue_points(names: Sequence[str], prime: int, rng: random.Random) -> Iterator[dict[str, int]]:
    """Points of uniform residues."""
    for _ in range(RESIDUES):
        yield {name: rng.randrange(prime) for name in names}


def whole_points(names: Sequence[str], rng: random.Random) -> Iterator[dict[str, Decimal]]:
    """Points of small whole numbers, for functions of whole numbers."""
    for _ in range(WHOLES):
        yield {name: Decimal(rng.randint(1, _LARGEST_WHOLE)) for name in names}


def real_points(nodes: Sequence[ExprNode], names: Sequence[str], rng: random.Random) -> Iterator[dict[str, Decimal]]:
    """Points of every scale and sign, between and beyond the numbers in ``nodes``; without names one empty point."""
    if not names:
        yield {}
        return
    for least, most, sign in _SCALES:
        yield {name: _drawn(rng, least, most, sign or rng.choice((1, -1))) for name in names}
    breaks = _breaks(nodes)
    for least, most in zip(breaks, [*breaks[1:], 3 * breaks[-1] + 1], strict=True):
        for sign in (1, -1):
            yield {name: _drawn(rng, least, most, sign) for name in names}


def _drawn(rng: random.Random, least: float, most: float, sign: int) -> Decimal:
    part = _CONTEXT.divide(Decimal(rng.getrandbits(_BITS) | 1), Decimal(1 << _BITS))
    low, high = Decimal(least), Decimal(most)
    size = _CONTEXT.add(low, _CONTEXT.multiply(part, _CONTEXT.subtract(high, low)))
    return size if sign > 0 else size.copy_negate()


def _breaks(nodes: Sequence[ExprNode]) -> list[float]:
    """The sizes of the numbers in the expressions that are at least 1, in order; of many, a few spread evenly."""
    sizes = {min(abs(value), Fraction(_LARGEST_BREAK)) for node in nodes for value in _numbers(node)}
    chosen = sorted(float(size) for size in sizes if size >= 1)
    if len(chosen) > _MOST_BREAKS:
        chosen = chosen[:: -(-len(chosen) // (_MOST_BREAKS - 1))] + chosen[-1:]
    return chosen or [100.0]


def _numbers(node: ExprNode) -> Iterator[Fraction]:
    """The values of the parts that are constants, each with all that belongs to it."""
    try:
        yield exact(node)
    except UndefinedError:
        return
    except NotExactError:
        if isinstance(node, Op):
            for part in node.args:
                yield from _numbers(part)


def of_whole_numbers(node: ExprNode) -> bool:
    """Whether this is a function of whole numbers.

    It is where a variable stands in a factorial, at the bottom of a binomial, or in the exponent of a negative number.
    """
    if not isinstance(node, Op):
        return False
    if node.kind == "!" or (node.kind == "binom" and symbols(node.args[1])):
        return bool(symbols(node))
    if node.kind == "^" and isinstance(node.args[0], Op) and node.args[0].kind == "neg":
        return not symbols(node.args[0]) and bool(symbols(node.args[1]))
    return any(of_whole_numbers(part) for part in node.args)
