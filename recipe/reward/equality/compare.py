# SPDX-License-Identifier: Apache-2.0
"""Whether two values of any type are the same answer: one function for each type, behind ``same_value``.

Results are True, False, or None where it is not known.
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from math import floor

from recipe.reward.equality.expressions import constant_value, same_function
from recipe.reward.equality.reals import Effort
from recipe.reward.equality.regions import is_set, real_set, same_set
from recipe.reward.equality.relations import as_relation, same_relation
from recipe.reward.grammar.number import Number, same_number
from recipe.reward.grammar.units import UNITS, same_unit
from recipe.reward.grammar.values import (
    Collection,
    ExprNode,
    Group,
    Matrix,
    Measure,
    NamedValue,
    Num,
    Op,
    Ratio,
    StatedDecimal,
    Symbol,
    Value,
    literal_value,
    symbols,
)

#: What comparing one answer may cost; see ``Effort``.
EFFORT = 200.0


def same_value(answer: Value, truth: Value, effort: Effort | None = None) -> bool | None:
    """Whether the answer has the value of the truth; None where either has no value that is known.

    An answer that is still to be worked out is not the number it would come to: where the truth is written as a number,
    so must be the answer. A truth such as ``2^{10}`` is matched by ``1024`` as well.
    """
    effort = Effort(EFFORT) if effort is None else effort
    if isinstance(answer, Measure) and isinstance(truth, Measure):
        return _same_measure(answer, truth, effort)
    if isinstance(answer, Group) and isinstance(truth, Group):
        return answer.brackets == truth.brackets and _in_order(answer.items, truth.items, effort)
    if is_set(answer) or is_set(truth):
        return _same_sets(answer, truth, effort)
    if isinstance(answer, NamedValue) or isinstance(truth, NamedValue):
        return _same_named(answer, truth, effort)
    if isinstance(answer, Ratio) or isinstance(truth, Ratio):
        return _same_ratio(answer, truth, effort)
    if isinstance(answer, Matrix) and isinstance(truth, Matrix):
        return _same_matrix(answer, truth, effort)
    if isinstance(truth, Group) and isinstance(answer, Collection):
        values = _coordinates(answer, truth)
        return values is not None and _in_order(values, truth.items, effort)
    if isinstance(answer, Group) and isinstance(truth, Collection):
        values = _coordinates(truth, answer)
        return values is not None and _in_order(answer.items, values, effort)
    if isinstance(answer, Collection) and isinstance(truth, Collection):
        return _same_items(_unnamed(answer.items, truth.items), _unnamed(truth.items, answer.items), effort)
    return answer == truth


def _same_sets(answer: Value, truth: Value, effort: Effort) -> bool | None:
    answer_set, truth_set = real_set(answer), real_set(truth)
    if answer_set is not None and truth_set is not None:
        return same_set(answer_set, truth_set, effort)
    answer_relation, truth_relation = as_relation(answer), as_relation(truth)
    if answer_relation is not None and truth_relation is not None:
        # A truth "x = 3" is a value: a relation from which it can be had is no answer.
        if (
            isinstance(truth, NamedValue)
            and isinstance(truth.name_node, Symbol)
            and not symbols(truth_relation.sides[-1])
        ):
            return False
        return same_relation(answer_relation, truth_relation, effort)
    if isinstance(answer, Collection) and isinstance(truth, Collection) and answer.kind == truth.kind:
        return _same_items(answer.items, truth.items, effort)
    return False


def _same_named(answer: Value, truth: Value, effort: Effort) -> bool | None:
    if isinstance(answer, NamedValue) and isinstance(truth, NamedValue) and answer.name != truth.name:
        # Two names differ; but "y = 2x" and "x = y/2" are one equation.
        equation, true_equation = as_relation(answer), as_relation(truth)
        if equation is None or true_equation is None or equation.sides[0] == true_equation.sides[0]:
            return False
        return same_relation(equation, true_equation, effort)
    return same_value(_bare(answer), _bare(truth), effort)


def _bare(value: Value) -> Value:
    """The value without its name."""
    return value.value if isinstance(value, NamedValue) else value


def _with_unit_of(answer: Measure, truth: Measure) -> Measure:
    """The answer with the letter behind its number as the unit, where that is the truth's: "5 m" for 5 metres."""
    node = answer.node
    if answer.unit or not isinstance(node, Op) or node.kind != "*" or len(node.args) != 2:
        return answer
    number, letter = node.args
    literal = literal_value(number)
    if literal is None or not isinstance(letter, Symbol) or UNITS.get(letter.name) != truth.unit:
        return answer
    return Measure(number, literal, unit=truth.unit)


def _same_measure(answer: Measure, truth: Measure, effort: Effort) -> bool | None:
    if truth.unit and answer.literal is None:
        answer = _with_unit_of(answer, truth)
    if answer.unit and truth.unit and not same_unit(answer.unit, truth.unit):
        return False
    if answer.decimal is not None and (agrees := _agrees(answer, answer.decimal, effort)) is not True:
        return agrees
    if truth.literal is not None:
        if answer.literal is None:
            # Work that is left undone is wrong, and so is a function; what has no known value is not known.
            known = symbols(answer.node) or same_function(answer.node, Num(truth.literal), effort) is not None
            return False if known else None
        same = same_number(Number(answer.literal, answer.percent), Number(truth.literal, truth.percent))
    elif answer.percent != truth.percent:
        return False
    else:
        node = Num(answer.literal) if answer.literal is not None else answer.node
        same_node = same_function(node, truth.node, effort)
        if same_node is not False:
            return same_node
        same = False
    return same or (truth.decimal is not None and answer.literal is not None and answer.literal == truth.decimal.value)


def _agrees(measure: Measure, decimal: StatedDecimal, effort: Effort) -> bool | None:
    """Whether the decimal behind a value is that value, rounded or cut off at the decimal's last digit."""
    value = measure.literal
    if value is None:
        constant = constant_value(measure.node, effort)
        if constant is None:
            return None
        value = Fraction(constant.long)
    if measure.percent:
        value /= 100
    if decimal.exact:
        return value == decimal.value
    steps = abs(value) / decimal.step
    rounded, cut_off = floor(steps + Fraction(1, 2)), floor(steps)
    return (value < 0) == (decimal.value < 0) and abs(decimal.value) / decimal.step in (rounded, cut_off)


def _same_ratio(answer: Value, truth: Value, effort: Effort) -> bool | None:
    if isinstance(answer, Ratio) and isinstance(truth, Ratio):
        halves = {answer.half_of_day, truth.half_of_day} - {""}
        if len(halves) > 1 or len(answer.parts) != len(truth.parts):
            return False
        zero = Num(Fraction(0))
        if answer.clock or truth.clock or zero in (*answer.parts, *truth.parts):
            return answer.parts == truth.parts
        (first, *rest), (true_first, *true_rest) = answer.parts, truth.parts
        return _all(
            same_function(Op("*", (part, true_first)), Op("*", (true_part, first)), effort)
            for part, true_part in zip(rest, true_rest, strict=True)
        )
    ratio, value = (answer, truth) if isinstance(answer, Ratio) else (truth, answer)
    if not isinstance(ratio, Ratio) or not isinstance(value, Measure) or len(ratio.parts) != 2 or ratio.half_of_day:
        return False
    quotient = Op("/", ratio.parts)
    literal = literal_value(quotient)
    if ratio.clock and (value.literal is None or literal is None or literal.numerator != _number(ratio.parts[0])):
        # "12:30" may be a time of day: only the same two numbers are the same.
        return False
    as_measure = Measure(quotient, literal)
    return _same_measure(as_measure, value, effort) if ratio is answer else _same_measure(value, as_measure, effort)


def _number(node: ExprNode) -> Fraction | None:
    return node.value if isinstance(node, Num) else None


def _same_matrix(answer: Matrix, truth: Matrix, effort: Effort) -> bool | None:
    if answer.kind != truth.kind or len(answer.rows) != len(truth.rows) or len(answer.rows[0]) != len(truth.rows[0]):
        return False
    return _all(_in_order(row, true_row, effort) for row, true_row in zip(answer.rows, truth.rows, strict=True))


def _coordinates(named: Collection, group: Group) -> tuple[Value, ...] | None:
    """The values of "x = 3, y = 4", in order, where they can stand for the pair (3, 4); else None.

    The names must be different symbols in the order of the alphabet.
    """
    if group.brackets != "()" or len(named.items) != len(group.items):
        return None
    names = [
        item.name if isinstance(item, NamedValue) and isinstance(item.name_node, Symbol) else "" for item in named.items
    ]
    if "" in names or names != sorted(set(names)):
        return None
    return tuple(_bare(item) for item in named.items)


def _unnamed(items: tuple[Value, ...], other_items: tuple[Value, ...]) -> tuple[Value, ...]:
    """The items of a list, without their names where the other list has none.

    "x = 1 or x = 2" is "1, 2", and so is "x_1 = 1, x_2 = 2"; "x = 1, y = 2" is "1, 2" with its names in order only.
    """
    if not items or any(isinstance(item, NamedValue) for item in other_items):
        return items
    names = [item.name for item in items if isinstance(item, NamedValue)]
    if isinstance(items[0], NamedValue) and len(names) == 1:
        return (items[0].value, *items[1:])
    stems = {name.partition("_")[0] for name in names}
    if len(names) != len(items) or (len(stems) > 1 and names != sorted(names)):
        return items
    return tuple(_bare(item) for item in items)


def _in_order(answer: tuple[Value, ...], truth: tuple[Value, ...], effort: Effort) -> bool | None:
    if len(answer) != len(truth):
        return False
    return _all(same_value(item, true_item, effort) for item, true_item in zip(answer, truth, strict=True))


def _same_items(answer: tuple[Value, ...], truth: tuple[Value, ...], effort: Effort) -> bool | None:
    """Whether two lists have the same items in any order."""
    if len(answer) != len(truth):
        return False
    unmatched = list(truth)
    unknown = False
    for item in answer:
        for place, true_item in enumerate(unmatched):
            same = same_value(item, true_item, effort)
            if same:
                del unmatched[place]
                break
            unknown = unknown or same is None
        else:
            return None if unknown else False
    return True


def _all(results: Iterable[bool | None]) -> bool | None:
    """False where one result is; else None where one is; else True."""
    unknown = False
    for same in results:
        if same is False:
            return False
        unknown = unknown or same is None
    return None if unknown else True
