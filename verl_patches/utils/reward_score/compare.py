# SPDX-License-Identifier: Apache-2.0
"""When two values that were read are the same answer."""

from __future__ import annotations

from collections.abc import Iterable

from verl_patches.utils.reward_score.evaluate import same_function
from verl_patches.utils.reward_score.number import Number, same_number
from verl_patches.utils.reward_score.values import Based, Collection, Group, Measure, Named, Num, Text, Value


def same_value(answer: Value, truth: Value) -> bool | None:
    """Whether the answer has the value of the truth, or None when an expression cannot be evaluated.

    An answer that still has to be worked out is not the number it comes to: where the truth is written as a number, so
    must be the answer. A truth such as ``2^{10}`` is matched by ``1024`` as well.
    """
    if isinstance(answer, Named) or isinstance(truth, Named):
        return _same_named(answer, truth)
    if isinstance(answer, Measure) and isinstance(truth, Measure):
        return _same_measure(answer, truth)
    if isinstance(answer, Group) and isinstance(truth, Group):
        if answer.brackets != truth.brackets or len(answer.items) != len(truth.items):
            return False
        return _all(same_value(one, other) for one, other in zip(answer.items, truth.items, strict=True))
    if isinstance(answer, Collection) and isinstance(truth, Collection):
        return answer.kind == truth.kind and _same_items(answer.items, truth.items)
    if isinstance(answer, Text | Based) and isinstance(truth, Text | Based):
        return answer == truth
    return False


def _same_named(answer: Value, truth: Value) -> bool | None:
    if isinstance(answer, Named) and isinstance(truth, Named) and answer.name != truth.name:
        return False
    return same_value(
        answer.value if isinstance(answer, Named) else answer, truth.value if isinstance(truth, Named) else truth
    )


def _same_measure(answer: Measure, truth: Measure) -> bool | None:
    if answer.unit and truth.unit and answer.unit != truth.unit:
        return False
    if truth.literal is not None:
        if answer.literal is None:
            return False
        return same_number(Number(answer.literal, answer.percent), Number(truth.literal, truth.percent))
    if answer.percent != truth.percent:
        return False
    return same_function(Num(answer.literal) if answer.literal is not None else answer.node, truth.node)


def _same_items(answer: tuple[Value, ...], truth: tuple[Value, ...]) -> bool | None:
    """Equality without order. The values compared are few, and each expression is evaluated once."""
    if len(answer) != len(truth):
        return False
    left = list(truth)
    unknown = False
    for one in answer:
        for place, other in enumerate(left):
            same = same_value(one, other)
            if same:
                del left[place]
                break
            unknown = unknown or same is None
        else:
            return None if unknown else False
    return True


def _all(results: Iterable[bool | None]) -> bool | None:
    unknown = False
    for result in results:
        if result is False:
            return False
        unknown = unknown or result is None
    return None if unknown else True
