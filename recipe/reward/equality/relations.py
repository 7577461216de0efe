# SPDX-License-Identifier: Apache-2.0
"""Equations, and relations that are no sets of numbers: equal up to a constant factor."""

from __future__ import annotations

from recipe.reward.equality.evaluate import proportional, same_function
from recipe.reward.equality.reals import Effort
from recipe.reward.grammar.values import Measure, Named, Node, Op, Relation, Symbol, Value, symbols

_TURNED = {"<": ">", ">": "<", "\\le": "\\ge", "\\ge": "\\le", "=": "=", "\\ne": "\\ne"}


def as_relation(value: Value) -> Relation | None:
    """The equation that a named expression with variables in it is too; a relation itself."""
    if isinstance(value, Relation):
        return value
    if isinstance(value, Named) and value.left is not None and isinstance(value.value, Measure):
        measure = value.value
        if not (measure.unit or measure.percent or measure.shown):
            return Relation((value.left, measure.node), ("=",))
    return None


def is_solved(relation: Relation) -> bool:
    """Whether one side is a variable and the other a constant: an answer, and not what it is still to be had from."""
    left, right = relation.sides[0], relation.sides[-1]
    names = [symbols(side) for side in (left, right)]
    alone = isinstance(left if names[0] else right, Symbol)
    return len(relation.sides) == 2 and alone and frozenset() in names


def same_relation(answer: Relation, truth: Relation, effort: Effort) -> bool | None:
    """Whether two relations are the same up to a constant factor, positive for inequalities, or in each part."""
    if is_solved(truth) and not is_solved(answer):
        return False
    if len(truth.signs) != len(answer.signs):
        return False
    if len(truth.signs) > 1:
        return _same_chain(answer, truth, effort)
    sign, wanted = answer.signs[0], truth.signs[0]
    given, other = _difference(answer), _difference(truth)
    if sign in ("=", "\\ne"):
        return sign == wanted and proportional(given, other, effort)
    if _TURNED[sign] == wanted:
        given = Op("neg", (given,))
    elif sign != wanted:
        return False
    return proportional(given, other, effort, positive=True)


def _difference(relation: Relation) -> Node:
    left, right = relation.sides
    return Op("+", (left, Op("neg", (right,))))


def _same_chain(answer: Relation, truth: Relation, effort: Effort) -> bool | None:
    """Side by side, read from either end."""
    turned = Relation(answer.sides[::-1], tuple(_TURNED[sign] for sign in reversed(answer.signs)))
    unknown = False
    for one in (answer, turned):
        if one.signs != truth.signs:
            continue
        results = [same_function(side, other, effort) for side, other in zip(one.sides, truth.sides, strict=True)]
        if all(results):
            return True
        unknown = unknown or (None in results and False not in results)
    return None if unknown else False
