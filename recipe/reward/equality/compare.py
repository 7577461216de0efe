# SPDX-License-Identifier: Apache-2.0
"""When two values that were read are the same answer."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction

from recipe.reward.equality.evaluate import constant_value, same_function
from recipe.reward.equality.reals import Effort
from recipe.reward.equality.regions import is_set, real_set, same_set
from recipe.reward.equality.relations import as_relation, same_relation
from recipe.reward.grammar.number import Number, same_number
from recipe.reward.grammar.units import UNITS, same_unit
from recipe.reward.grammar.values import (
    Collection,
    Group,
    Matrix,
    Measure,
    Named,
    Num,
    Op,
    Ratio,
    Shown,
    Symbol,
    Value,
    literal_value,
    symbols,
)

#: What comparing one answer may cost; see ``Effort``.
EFFORT = 200.0


def same_value(answer: Value, truth: Value, effort: Effort | None = None) -> bool | None:
    """Whether the answer has the value of the truth, or None when one of them has no value that is known.

    An answer that still has to be worked out is not the number it comes to: where the truth is written as a number, so
    must be the answer. A truth such as ``2^{10}`` is matched by ``1024`` as well.
    """
    effort = Effort(EFFORT) if effort is None else effort
    if isinstance(answer, Measure) and isinstance(truth, Measure):
        return _same_measure(answer, truth, effort)
    if isinstance(answer, Group) and isinstance(truth, Group):
        return answer.brackets == truth.brackets and _in_order(answer.items, truth.items, effort)
    if is_set(answer) or is_set(truth):
        return _same_sets(answer, truth, effort)
    if isinstance(answer, Named) or isinstance(truth, Named):
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
    given, wanted = real_set(answer), real_set(truth)
    if given is not None and wanted is not None:
        return same_set(given, wanted, effort)
    one, other = as_relation(answer), as_relation(truth)
    if one is not None and other is not None:
        if isinstance(truth, Named) and isinstance(truth.left, Symbol) and not symbols(other.sides[-1]):
            return False
        return same_relation(one, other, effort)
    if isinstance(answer, Collection) and isinstance(truth, Collection) and answer.kind == truth.kind:
        return _same_items(answer.items, truth.items, effort)
    return False


def _same_named(answer: Value, truth: Value, effort: Effort) -> bool | None:
    if isinstance(answer, Named) and isinstance(truth, Named) and answer.name != truth.name:
        one, other = as_relation(answer), as_relation(truth)
        if one is None or other is None or one.sides[0] == other.sides[0]:
            return False
        return same_relation(one, other, effort)
    return same_value(_bare(answer), _bare(truth), effort)


def _bare(value: Value) -> Value:
    return value.value if isinstance(value, Named) else value


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
    if answer.shown is not None and (agrees := _agrees(answer, answer.shown, effort)) is not True:
        return agrees
    if truth.literal is not None:
        if answer.literal is None:
            # Work that is not done is wrong, unless it comes to nothing; with a variable it is no number anyway.
            number = symbols(answer.node) or same_function(answer.node, Num(truth.literal), effort) is not None
            return False if number else None
        same = same_number(Number(answer.literal, answer.percent), Number(truth.literal, truth.percent))
    elif answer.percent != truth.percent:
        return False
    else:
        node = Num(answer.literal) if answer.literal is not None else answer.node
        found = same_function(node, truth.node, effort)
        if found is not False:
            return found
        same = False
    return same or (truth.shown is not None and answer.literal is not None and answer.literal == truth.shown.value)


def _agrees(measure: Measure, shown: Shown, effort: Effort) -> bool | None:
    """Whether the decimal behind a value is its value, rounded or cut off at the digits that are shown."""
    value = measure.literal
    if value is None:
        found = constant_value(measure.node, effort)
        if found is None:
            return None
        value = Fraction(found.long)
    if measure.percent:
        value /= 100
    if shown.exact:
        return value == shown.value
    size, decimal = abs(value), abs(shown.value)
    rounded, cut = (size / shown.step + Fraction(1, 2)).__floor__(), (size / shown.step).__floor__()
    return (value < 0) == (shown.value < 0) and decimal / shown.step in (rounded, cut)


def _same_ratio(answer: Value, truth: Value, effort: Effort) -> bool | None:
    if isinstance(answer, Ratio) and isinstance(truth, Ratio):
        if (answer.half and truth.half and answer.half != truth.half) or len(answer.parts) != len(truth.parts):
            return False
        nothing = Num(Fraction(0))
        if answer.clock or truth.clock or nothing in (*answer.parts, *truth.parts):
            return answer.parts == truth.parts
        first, other = answer.parts[0], truth.parts[0]
        return _all(
            same_function(Op("*", (one, other)), Op("*", (two, first)), effort)
            for one, two in zip(answer.parts[1:], truth.parts[1:], strict=True)
        )
    ratio, value = (answer, truth) if isinstance(answer, Ratio) else (truth, answer)
    if not isinstance(ratio, Ratio) or not isinstance(value, Measure) or len(ratio.parts) != 2 or ratio.half:
        return False
    quotient = Op("/", ratio.parts)
    literal = literal_value(quotient)
    if ratio.clock and (value.literal is None or literal is None or literal.numerator != _whole(ratio.parts[0])):
        # "12:30" may be a time of day: only the same two numbers are the same.
        return False
    as_measure = Measure(quotient, literal)
    return _same_measure(as_measure, value, effort) if ratio is answer else _same_measure(value, as_measure, effort)


def _whole(node: object) -> Fraction | None:
    return node.value if isinstance(node, Num) else None


def _same_matrix(answer: Matrix, truth: Matrix, effort: Effort) -> bool | None:
    if answer.kind != truth.kind or len(answer.rows) != len(truth.rows) or len(answer.rows[0]) != len(truth.rows[0]):
        return False
    return _all(_in_order(one, other, effort) for one, other in zip(answer.rows, truth.rows, strict=True))


def _coordinates(named: Collection, group: Group) -> tuple[Value, ...] | None:
    """The values of "x = 3, y = 4" for the pair (3, 4): names of one letter in the order of the alphabet."""
    if group.brackets != "()" or len(named.items) != len(group.items):
        return None
    names = [item.name if isinstance(item, Named) and isinstance(item.left, Symbol) else "" for item in named.items]
    if "" in names or names != sorted(set(names)):
        return None
    return tuple(_bare(item) for item in named.items)


def _unnamed(items: tuple[Value, ...], other: tuple[Value, ...]) -> tuple[Value, ...]:
    """The items of a list without names that only the one side has.

    "x = 1 or x = 2" is "1, 2", and so is "x_1 = 1, x_2 = 2"; "x = 1, y = 2" is "1, 2" in that order of names only.
    """
    if not items or any(isinstance(item, Named) for item in other):
        return items
    names = [item.name for item in items if isinstance(item, Named)]
    if isinstance(items[0], Named) and len(names) == 1:
        return (items[0].value, *items[1:])
    stems = {name.partition("_")[0] for name in names}
    if len(names) != len(items) or (len(stems) > 1 and names != sorted(names)):
        return items
    return tuple(_bare(item) for item in items)


def _in_order(answer: tuple[Value, ...], truth: tuple[Value, ...], effort: Effort) -> bool | None:
    if len(answer) != len(truth):
        return False
    return _all(same_value(one, other, effort) for one, other in zip(answer, truth, strict=True))


def _same_items(answer: tuple[Value, ...], truth: tuple[Value, ...], effort: Effort) -> bool | None:
    """Equality without order."""
    if len(answer) != len(truth):
        return False
    left = list(truth)
    unknown = False
    for one in answer:
        for place, other in enumerate(left):
            same = same_value(one, other, effort)
            if same:
                del left[place]
                break
            unknown = unknown or same is None
        else:
            return None if unknown else False
    return True


def _all(results: Iterable[bool | None]) -> bool | None:
    unknown = False
    for same in results:
        if same is False:
            return False
        unknown = unknown or same is None
    return None if unknown else True
