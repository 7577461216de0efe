# SPDX-License-Identifier: Apache-2.0
"""What an answer can be once it is read: typed values over expressions with exact rational numbers."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Union


@dataclass(frozen=True)
class Num:
    """An exact rational number, as written."""

    value: Fraction


@dataclass(frozen=True)
class Symbol:
    """A variable, a constant without a value here, or ``\\pi``."""

    name: str


@dataclass(frozen=True)
class Op:
    """``kind`` is one of ``+ * / ^ neg abs root``; a root has its degree (Num) first."""

    kind: str
    args: tuple[Node, ...]


Node = Union[Num, Symbol, Op]  # noqa: UP007  (evaluated at run time, on Python 3.10 too)


@dataclass(frozen=True)
class Measure:
    """A scalar. ``literal``: its value where it is written as a number; ``unit`` is empty where none is written."""

    node: Node
    literal: Fraction | None
    percent: bool = False
    unit: str = ""


@dataclass(frozen=True)
class Group:
    """A tuple or an interval: the order of the items and the brackets count."""

    brackets: str
    items: tuple[Value, ...]


@dataclass(frozen=True)
class Collection:
    """A set, a list without brackets (kind ``,``) or a union of intervals (kind ``u``): the order does not count."""

    kind: str
    items: tuple[Value, ...]


@dataclass(frozen=True)
class Named:
    """A value after ``name =``."""

    name: str
    value: Value


@dataclass(frozen=True)
class Based:
    """A number written in another base, as digits."""

    digits: str
    base: str


@dataclass(frozen=True)
class Text:
    """Words. ``key`` is their normalised spelling."""

    key: str


Value = Union[Measure, Group, Collection, Named, Based, Text]  # noqa: UP007


def literal_value(node: Node) -> Fraction | None:
    """The value of a node that is written as a number: decimal, fraction, mixed number or scientific notation.

    A fraction that comes to an integer is a division still to be worked out, and has none.
    """
    if isinstance(node, Num):
        return node.value
    if isinstance(node, Symbol):
        return None
    if node.kind == "neg" and not (isinstance(node.args[0], Op) and node.args[0].kind == "neg"):
        inner = literal_value(node.args[0])
        return None if inner is None else -inner
    if node.kind == "/":
        value = ratio_value(node)
        return None if value is None or value.denominator == 1 else value
    if node.kind == "*" and len(node.args) == 2 and isinstance(node.args[0], Num) and isinstance(node.args[1], Op):
        base, *exponents = node.args[1].args
        if node.args[1].kind == "^" and base == Num(Fraction(10)):
            exponent = _signed_number(exponents[0])
            if exponent is not None and exponent.denominator == 1 and abs(exponent) <= 100:
                return node.args[0].value * Fraction(10) ** int(exponent)
    return None


def ratio_value(node: Op) -> Fraction | None:
    above, below = (_signed_number(part) for part in node.args)
    return None if above is None or not below else above / below


def _signed_number(node: Node) -> Fraction | None:
    if isinstance(node, Op) and node.kind == "neg" and isinstance(node.args[0], Num):
        return -node.args[0].value
    return node.value if isinstance(node, Num) else None
