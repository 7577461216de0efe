# SPDX-License-Identifier: Apache-2.0
"""What is left of two expressions when the terms and factors that both have are taken away: their rests.

Real values that agree in thirty digits may still differ by a part that is too small to be seen. Where the rests of two
sums or products are rational, they can be compared exactly.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from fractions import Fraction

from recipe.reward.grammar.values import ExprNode, Num, Op

_MOST_STEPS = 4
_ZERO, _ONE = Num(Fraction(0)), Num(Fraction(1))


def rests(a: ExprNode, b: ExprNode) -> Iterator[tuple[ExprNode, ExprNode]]:
    """Pairs of ever shorter expressions, each equal where ``a`` and ``b`` are, and only there.

    Each step takes away the common terms, else the common factors, else a root around both.
    """
    for _ in range(_MOST_STEPS):
        shorter = _without_common(a, b)
        if shorter is None:
            return
        a, b = shorter
        yield a, b


def _without_common(a: ExprNode, b: ExprNode) -> tuple[ExprNode, ExprNode] | None:
    for parts, kind, unit in ((_terms, "+", _ZERO), (_factors, "*", _ONE)):
        parts_a, parts_b = Counter(parts(a)), Counter(parts(b))
        common = parts_a & parts_b
        if common:
            return _joined(parts_a - common, kind, unit), _joined(parts_b - common, kind, unit)
    if isinstance(a, Op) and isinstance(b, Op) and a.kind == b.kind == "root" and a.args[0] == b.args[0]:
        return a.args[1], b.args[1]
    return None


def _joined(parts: Counter[ExprNode], kind: str, unit: ExprNode) -> ExprNode:
    nodes = list(parts.elements())
    return unit if not nodes else nodes[0] if len(nodes) == 1 else Op(kind, tuple(nodes))


def _terms(node: ExprNode, negative: bool = False) -> Iterator[ExprNode]:
    if isinstance(node, Op) and node.kind == "+":
        for part in node.args:
            yield from _terms(part, negative)
    elif isinstance(node, Op) and node.kind == "neg":
        yield from _terms(node.args[0], not negative)
    else:
        yield Op("neg", (node,)) if negative else node


def _factors(node: ExprNode, below: bool = False) -> Iterator[ExprNode]:
    if isinstance(node, Op) and node.kind == "*":
        for part in node.args:
            yield from _factors(part, below)
    elif isinstance(node, Op) and node.kind == "/":
        yield from _factors(node.args[0], below)
        yield from _factors(node.args[1], not below)
    else:
        yield Op("/", (_ONE, node)) if below else node
