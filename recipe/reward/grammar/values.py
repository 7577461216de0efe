# SPDX-License-Identifier: Apache-2.0
"""What an answer can be once it is read: typed values over expressions with exact rational numbers."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple, Union


@dataclass(frozen=True)
class Num:
    """An exact rational number, as written."""

    value: Fraction


@dataclass(frozen=True)
class Symbol:
    """A variable, or one of the ``CONSTANTS``."""

    name: str


@dataclass(frozen=True)
class Op:
    """``kind`` is one of ``+ * / ^ neg abs root floor ceil ! binom log pm mp`` or a function of ``names.py``.

    The first argument of a root is its degree (a Num), that of a logarithm its base. ``pm`` and ``mp`` are signs of one
    argument; ``read`` returns no value with them, see ``signs.py``.
    """

    kind: str
    args: tuple[ExprNode, ...]


ExprNode = Union[Num, Symbol, Op]  # noqa: UP007  (evaluated at run time, on Python 3.10 too)

CONSTANTS = frozenset(("\\pi", "e"))


class StatedDecimal(NamedTuple):
    """The decimal that an answer states behind its value, as in ``\\frac34 \\approx 0.750``.

    ``step`` is one unit of its last digit; ``exact``: an equals sign stands between the two.
    """

    value: Fraction
    step: Fraction
    exact: bool


@dataclass(frozen=True)
class Measure:
    """A scalar with what stands beside it.

    ``literal``: the value of ``node``, where it is written as a number and nothing is left to work out. ``unit`` is
    empty where none is written.
    """

    node: ExprNode
    literal: Fraction | None
    percent: bool = False
    unit: str = ""
    decimal: StatedDecimal | None = None


@dataclass(frozen=True)
class Infinity:
    """``sign`` is 1 or -1."""

    sign: int


@dataclass(frozen=True)
class Group:
    """A tuple or an interval: the order of the items and the brackets count."""

    brackets: str
    items: tuple[Value, ...]


@dataclass(frozen=True)
class Collection:
    r"""Several values; their order counts for a difference of sets only.

    ``kind`` is ``,`` (a list without brackets, or a set), ``and``, ``or``, ``u`` (a union), ``n`` (an intersection) or
    ``\`` (the first set without the second).
    """

    kind: str
    items: tuple[Value, ...]


@dataclass(frozen=True)
class NamedValue:
    """A value after ``name =``; ``name_node`` is the name as an expression, where it can be read as one."""

    name: str
    value: Value
    name_node: ExprNode | None = None


@dataclass(frozen=True)
class Relation:
    r"""A chain of expressions with a sign (``= \ne < > \le \ge``) between any two of them."""

    sides: tuple[ExprNode, ...]
    signs: tuple[str, ...]


#: Each sign of relation, read from the other end.
TURNED = {"<": ">", ">": "<", "\\le": "\\ge", "\\ge": "\\le", "=": "=", "\\ne": "\\ne"}


@dataclass(frozen=True)
class Ratio:
    """``2:3``. ``clock``: it could be a time of day; ``half_of_day`` is am, pm or empty."""

    parts: tuple[ExprNode, ...]
    clock: bool = False
    half_of_day: str = ""


@dataclass(frozen=True)
class Matrix:
    """Rows of entries. ``kind`` is ``matrix``, or ``det`` for a determinant that was left undone."""

    kind: str
    rows: tuple[tuple[Value, ...], ...]


@dataclass(frozen=True)
class BasedNumber:
    """A number in another base, as its digits; ``base`` is 2 to 36."""

    digits: str
    base: int


@dataclass(frozen=True)
class Text:
    """Words. ``key`` is their normalised spelling."""

    key: str


Value = Union[Measure, Infinity, Group, Collection, NamedValue, Relation, Ratio, Matrix, BasedNumber, Text]  # noqa: UP007

REAL_LINE = Group("()", (Infinity(-1), Infinity(1)))
EMPTY = Collection(",", ())


def literal_value(node: ExprNode) -> Fraction | None:
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


def word_value(key: str) -> Value:
    """What a normalised word is: a single letter is a variable, as it would be in an expression; the rest is text."""
    return Measure(Symbol(key), None) if len(key) == 1 and key.isalpha() else Text(key)


def ratio_value(node: Op) -> Fraction | None:
    """The value of a fraction whose two parts are written as numbers; None for any other, and for one over zero."""
    above, below = (_signed_number(part) for part in node.args)
    return None if above is None or not below else above / below


def symbols(node: ExprNode) -> frozenset[str]:
    """The names of the variables of an expression; constants are none."""
    names: set[str] = set()
    waiting = [node]
    while waiting:
        part = waiting.pop()
        if isinstance(part, Op):
            waiting += part.args
        elif isinstance(part, Symbol) and part.name not in CONSTANTS:
            names.add(part.name)
    return frozenset(names)


def _signed_number(node: ExprNode) -> Fraction | None:
    if isinstance(node, Op) and node.kind == "neg" and isinstance(node.args[0], Num):
        return -node.args[0].value
    return node.value if isinstance(node, Num) else None
