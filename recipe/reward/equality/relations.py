# SPDX-License-Identifier: Apache-2.0
"""Whether two equations, or other relations that are no sets of numbers, are the same up to a constant factor."""

from __future__ import annotations

from recipe.reward.equality.expressions import proportional, same_function
from recipe.reward.equality.reals import Effort
from recipe.reward.grammar.values import TURNED, ExprNode, Measure, NamedValue, Op, Relation, Symbol, Value, symbols


def as_relation(value: Value) -> Relation | None:
    """The relation that a value is: itself, or "name = expression" as an equation; None for any other value."""
    if isinstance(value, Relation):
        return value
    if isinstance(value, NamedValue) and value.name_node is not None and isinstance(value.value, Measure):
        measure = value.value
        if not (measure.unit or measure.percent or measure.decimal):
            return Relation((value.name_node, measure.node), ("=",))
    return None


def is_solved(relation: Relation) -> bool:
    """Whether one side is a variable and the other a constant: such a relation is an answer, and not a task."""
    first, last = relation.sides[0], relation.sides[-1]
    names = [symbols(side) for side in (first, last)]
    alone = isinstance(first if names[0] else last, Symbol)
    return len(relation.sides) == 2 and alone and frozenset() in names


def same_relation(answer: Relation, truth: Relation, effort: Effort) -> bool | None:
    """Whether two relations are the same up to a constant factor, positive for inequalities, or in each part."""
    if is_solved(truth) and not is_solved(answer):
        return False
    if len(truth.signs) != len(answer.signs):
        return False
    if len(truth.signs) > 1:
        return _same_chain(answer, truth, effort)
    sign, truth_sign = answer.signs[0], truth.signs[0]
    difference, truth_difference = _difference(answer), _difference(truth)
    if sign in ("=", "\\ne"):
        return sign == truth_sign and proportional(difference, truth_difference, effort)
    if TURNED[sign] == truth_sign:
        difference = Op("neg", (difference,))
    elif sign != truth_sign:
        return False
    return proportional(difference, truth_difference, effort, positive=True)


def _difference(relation: Relation) -> ExprNode:
    """The first side less the second, which the relation compares with 0."""
    first, second = relation.sides
    return Op("+", (first, Op("neg", (second,))))


def _same_chain(answer: Relation, truth: Relation, effort: Effort) -> bool | None:
    """Whether two chains are the same side by side, when the answer is read from either end."""
    turned = Relation(answer.sides[::-1], tuple(TURNED[sign] for sign in reversed(answer.signs)))
    unknown = False
    for chain in (answer, turned):
        if chain.signs != truth.signs:
            continue
        results = [same_function(side, wanted, effort) for side, wanted in zip(chain.sides, truth.sides, strict=True)]
        if all(results):
            return True
        unknown = unknown or (None in results and False not in results)
    return None if unknown else False
