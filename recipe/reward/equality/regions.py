# SPDX-License-Identifier: Apache-2.0
r"""Inequalities, intervals and their unions as sets of real numbers.

A set is a tree of conditions on one variable, each with an expression as its bound. Two sets are the same when every
bound of either, and a point in every gap between bounds, is in both or in neither. Where bounds have other variables,
the parameters, this is asked at several random values of them.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from itertools import islice
from typing import Union

from recipe.reward.equality.exact import UndefinedError
from recipe.reward.equality.points import real_points
from recipe.reward.equality.reals import Effort, Real, UnknownError, close, value_at
from recipe.reward.grammar.values import (
    TURNED,
    Collection,
    ExprNode,
    Group,
    Infinity,
    Measure,
    NamedValue,
    Relation,
    Symbol,
    Value,
    literal_value,
    symbols,
)

#: Values of the parameters at which two sets are compared, and at how many of them at least they must not be empty.
_PARAMETER_POINTS, _FEWEST_POINTS = 12, 3
#: Number of conditions that count as much effort as one function.
_CONDITIONS = 100

_HOLDS: dict[str, Callable[[int, int], bool]] = {
    "<": operator.lt, "\\le": operator.le, ">": operator.gt, "\\ge": operator.ge, "=": operator.eq, "\\ne": operator.ne,
}  # fmt: skip


@dataclass(frozen=True)
class Bounded:
    """The points x for which "x ``sign`` bound" holds."""

    sign: str
    bound: ExprNode


@dataclass(frozen=True)
class Joined:
    r"""Regions as one: ``kind`` is ``and``, ``or``, or ``\`` for the points of the first that no other region has."""

    kind: str
    parts: tuple[Region, ...]


Region = Union[Bounded, Joined]  # noqa: UP007


@dataclass(frozen=True)
class RealSet:
    """A region of the line; ``variable`` is the name of its points, empty where none is named."""

    variable: str
    region: Region


def is_set(value: Value) -> bool:
    """Whether a value can only be meant as a set of real numbers: an inequality, an interval, or made of these."""
    if isinstance(value, Relation):
        return True
    if isinstance(value, NamedValue):
        return is_set(value.value)
    if isinstance(value, Collection):
        return value.kind in ("u", "n", "\\") or (
            value.kind in ("and", "or") and any(is_set(item) for item in value.items)
        )
    return (
        isinstance(value, Group)
        and len(value.items) == 2
        and (value.brackets != "()" or any(isinstance(item, Infinity) for item in value.items))
    )


def real_set(value: Value) -> RealSet | None:
    """The set that a value is, or None where it is none."""
    if isinstance(value, NamedValue):
        inner = real_set(value.value)
        if inner is None or value.name_node != Symbol(value.name) or inner.variable not in ("", value.name):
            return None
        return RealSet(value.name, inner.region)
    if isinstance(value, Measure):
        plain = not (value.unit or value.percent or value.decimal)
        return RealSet("", Bounded("=", value.node)) if plain else None
    if isinstance(value, Group):
        return _interval(value)
    if isinstance(value, Relation):
        return _related(value)
    return _joined(value) if isinstance(value, Collection) else None


def _interval(value: Group) -> RealSet | None:
    if len(value.items) != 2:
        return None
    low, high = value.items
    conditions: list[Region] = []
    for item, bracket, signs, missing in (
        (low, value.brackets[0], (">", "\\ge"), Infinity(-1)),
        (high, value.brackets[1], ("<", "\\le"), Infinity(1)),
    ):
        if item == missing and bracket in "()":
            continue
        if not isinstance(item, Measure) or item.unit or item.percent or item.decimal:
            return None
        conditions.append(Bounded(signs[bracket in "[]"], item.node))
    return RealSet("", Joined("and", tuple(conditions)))


def _related(value: Relation) -> RealSet | None:
    names = {side.name for side in value.sides if isinstance(side, Symbol) and symbols(side)}
    for name in sorted(names):
        conditions = list(_conditions(value, name))
        if len(conditions) == len(value.signs):
            return RealSet(name, Joined("and", tuple(conditions)))
    return None


def _conditions(value: Relation, name: str) -> Iterator[Bounded]:
    """The conditions of a chain in which every relation has the variable alone on one side."""
    for left, sign, right in zip(value.sides, value.signs, value.sides[1:], strict=False):
        if left == Symbol(name) and name not in symbols(right):
            yield Bounded(sign, right)
        elif right == Symbol(name) and name not in symbols(left):
            yield Bounded(TURNED[sign], left)


def _joined(value: Collection) -> RealSet | None:
    parts = [real_set(item) for item in value.items]
    variables = {part.variable for part in parts if part is not None and part.variable}
    if None in parts or len(variables) > 1:
        return None
    kind = {"u": "or", "or": "or", "n": "and", "and": "and", "\\": "\\"}.get(value.kind, "or")
    # A list such as "x > 0, x \ne 3" means that all of it holds.
    if value.kind == "," and any(isinstance(item, Relation) and "\\ne" in item.signs for item in value.items):
        kind = "and"
    return RealSet("".join(variables), Joined(kind, tuple(part.region for part in parts if part is not None)))


def same_set(answer: RealSet, truth: RealSet, effort: Effort) -> bool | None:
    """Whether two sets are the same, or None when a bound has no known value.

    The variable may be left out on one side. A bound that the truth writes as a number must be one in the answer too.
    """
    if answer.variable and truth.variable and answer.variable != truth.variable:
        return False
    answer_bounds, truth_bounds = list(_bounds(answer.region)), list(_bounds(truth.region))
    bounds = [*answer_bounds, *truth_bounds]
    parameters = sorted(frozenset().union(*(symbols(bound) for bound in bounds)))
    if {answer.variable, truth.variable} & set(parameters):
        return None
    not_empty = 0
    for point in islice(real_points(bounds, parameters, effort.generator), _PARAMETER_POINTS):
        try:
            effort.spend(len(bounds) ** 2 / _CONDITIONS)
            line = _Line(bounds, point, effort)
        except (UndefinedError, UnknownError):
            if effort.budget < 0:
                return None
            continue
        members = line.members(answer.region)
        if members != line.members(truth.region):
            return False
        if not parameters and not line.worked_out(answer_bounds, truth_bounds):
            return False
        not_empty += any(members)
        if not parameters and not not_empty:
            return False
    return True if not_empty >= (_FEWEST_POINTS if parameters else 1) else None


def _bounds(region: Region) -> Iterator[ExprNode]:
    if isinstance(region, Bounded):
        yield region.bound
    else:
        for part in region.parts:
            yield from _bounds(part)


class _Line:
    """The real line at one value of the parameters, cut by the bounds into places.

    Of the different bounds in order, number i is place 2 i + 1; the gaps between and beyond them are the even places.
    """

    def __init__(self, bounds: list[ExprNode], point: dict[str, Decimal], effort: Effort) -> None:
        values = {bound: value_at(bound, point, effort) for bound in dict.fromkeys(bounds)}
        self.places: dict[ExprNode, int] = {}
        self.count = 0
        previous: Real | None = None
        for bound, value in sorted(values.items(), key=lambda item: item[1].long):
            if previous is None or not close(previous, value):
                self.count += 1
            previous = value
            self.places[bound] = 2 * self.count - 1

    def members(self, region: Region) -> list[bool]:
        """For every place in order, whether it is in the set."""
        return [self._has(region, place) for place in range(2 * self.count + 1)]

    def _has(self, region: Region, place: int) -> bool:
        if isinstance(region, Bounded):
            return _HOLDS[region.sign](place, self.places[region.bound])
        inside = [self._has(part, place) for part in region.parts]
        if region.kind == "\\":
            return inside[0] and not any(inside[1:])
        return all(inside) if region.kind == "and" else any(inside)

    def worked_out(self, answer_bounds: list[ExprNode], truth_bounds: list[ExprNode]) -> bool:
        """Whether each bound of the answer is written as a number where the truth's is."""
        numbers = {self.places[bound] for bound in truth_bounds if literal_value(bound) is not None}
        return all(literal_value(bound) is not None for bound in answer_bounds if self.places[bound] in numbers)
