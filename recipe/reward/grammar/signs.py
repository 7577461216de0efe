# SPDX-License-Identifier: Apache-2.0
r"""The two values that ``\pm`` (or ``\mp``) stands for."""

from __future__ import annotations

from dataclasses import replace

from recipe.reward.grammar.tokens import GrammarError
from recipe.reward.grammar.values import (
    ExprNode,
    Group,
    Measure,
    NamedValue,
    Op,
    Ratio,
    Relation,
    Value,
    literal_value,
)


def both_signs(value: Value) -> list[Value]:
    r"""The value itself or, where ``\pm`` is in it, the two values: first with the upper signs, then with the lower."""
    if not _has_both(value):
        return [value]
    return [_with_sign(value, upper) for upper in (True, False)]


def _has_both(value: Value) -> bool:
    if isinstance(value, Measure):
        return _in_node(value.node)
    if isinstance(value, NamedValue):
        return _has_both(value.value)
    if isinstance(value, Group):
        return any(_has_both(item) for item in value.items)
    if isinstance(value, Relation):
        if any(_in_node(side) for side in value.sides):
            raise GrammarError("\\pm in a relation")
    elif isinstance(value, Ratio) and any(_in_node(part) for part in value.parts):
        raise GrammarError("\\pm in a ratio")
    return False


def _in_node(node: ExprNode) -> bool:
    return isinstance(node, Op) and (node.kind in ("pm", "mp") or any(_in_node(part) for part in node.args))


def _with_sign(value: Value, upper: bool) -> Value:
    if isinstance(value, Measure):
        if value.decimal is not None:
            raise GrammarError("\\pm with a decimal")
        node = _signed(value.node, upper)
        return replace(value, node=node, literal=literal_value(node))
    if isinstance(value, NamedValue):
        return replace(value, value=_with_sign(value.value, upper))
    if isinstance(value, Group):
        return replace(value, items=tuple(_with_sign(item, upper) for item in value.items))
    return value


def _signed(node: ExprNode, upper: bool) -> ExprNode:
    if not isinstance(node, Op):
        return node
    parts = tuple(_signed(part, upper) for part in node.args)
    if node.kind not in ("pm", "mp"):
        return Op(node.kind, parts)
    return parts[0] if upper == (node.kind == "pm") else Op("neg", parts)
