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
    """``kind`` is one of ``+ * / ^ neg abs root floor ceil ! binom log pm mp`` or a function of ``functions``.

    A root has its degree (Num) first, a logarithm its base. ``pm`` and ``mp`` are the signs of one argument, and are
    in no value that was read.
    """

    kind: str
    args: tuple[Node, ...]


Node = Union[Num, Symbol, Op]  # noqa: UP007  (evaluated at run time, on Python 3.10 too)

CONSTANTS = frozenset(("\\pi", "e"))


class Shown(NamedTuple):
    """A decimal that stands behind a value, as in ``\\frac34 \\approx 0.750``.

    ``step`` is one unit of its last digit; ``exact``: it was joined by an equals sign.
    """

    value: Fraction
    step: Fraction
    exact: bool


@dataclass(frozen=True)
class Measure:
    """A scalar. ``literal``: its value where it is written as a number; ``unit`` is empty where none is written."""

    node: Node
    literal: Fraction | None
    percent: bool = False
    unit: str = ""
    shown: Shown | None = None


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
    r"""Several values whose order does not count, but for a difference.

    ``kind`` is ``,`` (a list without brackets or a set), ``and``, ``or``, ``u`` (a union), ``n`` (an intersection) or
    ``\`` (a set without another one).
    """

    kind: str
    items: tuple[Value, ...]


@dataclass(frozen=True)
class Named:
    """A value after ``name =``. ``left``: the name as an expression, where it is one."""

    name: str
    value: Value
    left: Node | None = None


@dataclass(frozen=True)
class Relation:
    r"""A chain of expressions with a sign (``= \ne < > \le \ge``) between any two of them."""

    sides: tuple[Node, ...]
    signs: tuple[str, ...]


@dataclass(frozen=True)
class Ratio:
    """``2:3``. ``clock``: it could be a time of day; ``half`` is am, pm or empty."""

    parts: tuple[Node, ...]
    clock: bool = False
    half: str = ""


@dataclass(frozen=True)
class Matrix:
    """Rows of entries. ``kind`` is ``matrix`` or ``det``, which is a number still to be worked out."""

    kind: str
    rows: tuple[tuple[Value, ...], ...]


@dataclass(frozen=True)
class Based:
    """A number written in another base, as digits; ``base`` is 2 to 36."""

    digits: str
    base: int


@dataclass(frozen=True)
class Text:
    """Words. ``key`` is their normalised spelling."""

    key: str


Value = Union[Measure, Infinity, Group, Collection, Named, Relation, Ratio, Matrix, Based, Text]  # noqa: UP007

REAL_LINE = Group("()", (Infinity(-1), Infinity(1)))
EMPTY = Collection(",", ())


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
    """The value of a fraction of two numbers as written; None for any other, and for one over zero."""
    above, below = (_signed_number(part) for part in node.args)
    return None if above is None or not below else above / below


def symbols(node: Node) -> frozenset[str]:
    """The names of the variables of an expression; constants are none."""
    found: set[str] = set()
    waiting = [node]
    while waiting:
        one = waiting.pop()
        if isinstance(one, Op):
            waiting += one.args
        elif isinstance(one, Symbol) and one.name not in CONSTANTS:
            found.add(one.name)
    return frozenset(found)


def _signed_number(node: Node) -> Fraction | None:
    if isinstance(node, Op) and node.kind == "neg" and isinstance(node.args[0], Num):
        return -node.args[0].value
    return node.value if isinstance(node, Num) else None
