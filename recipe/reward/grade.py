# SPDX-License-Identifier: Apache-2.0
"""Grades an answer against a ground truth of any JSON type, and a response against it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from typing import Any

from recipe.reward.equality.compare import EFFORT, same_value
from recipe.reward.equality.expressions import constant_value, varies
from recipe.reward.equality.reals import Effort
from recipe.reward.equality.regions import is_set
from recipe.reward.grammar.answers import read
from recipe.reward.grammar.normalise import normalise
from recipe.reward.grammar.number import LONGEST_NUMBER, parse_number, same_number
from recipe.reward.grammar.values import Collection, Group, Matrix, Measure, Text
from recipe.reward.response import LONGEST_ANSWER, answer_part, last_box
from recipe.reward.verdict import Verdict

# Over several accepted answers, the verdict is the first of these that occurs.
_BEST_FIRST = (Verdict.CORRECT, Verdict.WRONG, Verdict.UNPARSEABLE, Verdict.NO_ANSWER)
# The same for tier 3, where a deadline or a death comes before "wrong": the answer may have been right by that truth.
_BEST_OF_APPEALS = (Verdict.CORRECT, Verdict.TIMEOUT, Verdict.ERROR, Verdict.WRONG, Verdict.UNPARSEABLE)

#: A number that differs from a value by more than this part of it is another number.
_NEAR = Decimal("1e-9")

#: Tier 3: the verdict on an answer and a truth that tiers 1 and 2 call unparseable.
Appeal = Callable[[str, str], Verdict]


def grade_response(response: Any, ground_truth: Any, appeal: Appeal | None = None) -> Verdict:
    """Grades the last ``\\boxed{…}`` inside ``<answer>``; a response that is no text is an error."""
    if not isinstance(response, str):
        return Verdict.ERROR
    part = answer_part(response)
    return grade_answer(None if part is None else last_box(part), ground_truth, appeal)


def grade_answer(answer: str | None, ground_truth: Any, appeal: Appeal | None = None) -> Verdict:
    """Grades one answer; where the ground truth is a list, the best verdict over its items. Never raises.

    ``appeal``, where given, has the last word on what is unparseable.
    """
    verdict = _best(answer, ground_truth, _grade)
    if appeal is None or answer is None or verdict is not Verdict.UNPARSEABLE:
        return verdict
    verdicts = {appeal(answer, truth) for truth in alternatives(ground_truth)}
    return next(verdict for verdict in _BEST_OF_APPEALS if verdict in verdicts)


def grade_text(answer: str | None, ground_truth: Any) -> Verdict:
    """Grades by tier 1 and plain numbers only: what is neither the same text nor the same number is wrong."""
    return _best(answer, ground_truth, _grade_text)


def _best(answer: str | None, ground_truth: Any, grade: Callable[[str, str], Verdict]) -> Verdict:
    truths = alternatives(ground_truth)
    if not truths:
        return Verdict.ERROR
    if answer is None or not answer.strip():
        return Verdict.NO_ANSWER
    if len(truths) == 1:
        return grade(answer, truths[0])
    verdicts = {grade(answer, truth) for truth in truths}
    return next(verdict for verdict in _BEST_FIRST if verdict in verdicts)


def same_answer(answer: str, truth: str) -> bool:
    """Whether the answer is right where ``truth`` is. Blank texts are equal to nothing."""
    return grade_answer(answer, truth) is Verdict.CORRECT


def alternatives(ground_truth: Any) -> list[str]:
    """The accepted answers as texts: of a list its items, of a number or boolean its JSON spelling.

    Null, objects, blank texts, lists within a list and what is too long or not finite are left out; where nothing else
    is there, nothing is accepted.
    """
    if isinstance(ground_truth, str):
        return [ground_truth] if len(ground_truth) <= LONGEST_ANSWER and normalise_once(ground_truth) else []
    return list(_texts(ground_truth))


def _texts(ground_truth: Any) -> Iterator[str]:
    if hasattr(ground_truth, "tolist"):  # Parquet's lists and numbers arrive as NumPy's
        ground_truth = ground_truth.tolist()
    for value in ground_truth if isinstance(ground_truth, list | tuple) else (ground_truth,):
        if isinstance(value, str):
            if len(value) <= LONGEST_ANSWER and normalise_once(value):
                yield value
        elif isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
            try:
                yield json.dumps(value)
            except ValueError:  # Python prints no integer of more than some thousand digits; no answer is as long
                continue


@lru_cache(maxsize=16384)
def normalise_once(text: str) -> str:
    """``normalise``, remembered: every ground truth of a group, and most answers, occur several times."""
    return normalise(text)


@lru_cache(maxsize=32768)
def _grade(answer: str, truth: str) -> Verdict:
    if len(answer) > LONGEST_ANSWER:
        return Verdict.UNPARSEABLE
    key = normalise_once(answer)
    if not key:
        return Verdict.NO_ANSWER
    truth_key = normalise_once(truth)
    if key == truth_key:
        return Verdict.CORRECT
    if _is_integer(key):
        if _is_integer(truth_key):
            return Verdict.CORRECT if int(key) == int(truth_key) else Verdict.WRONG
        if _is_other(Fraction(int(key)), truth):
            return Verdict.WRONG
    answer_value, truth_value = read(answer), read(truth)
    if answer_value is None or truth_value is None:
        return Verdict.UNPARSEABLE
    # Most wrong answers are numbers, which are told from the truth without a comparison.
    literal = answer_value.literal if isinstance(answer_value, Measure) else None
    if literal is not None and _is_other(literal, truth):
        return Verdict.WRONG
    same = same_value(answer_value, truth_value, Effort(EFFORT, answer, truth))
    if same is None:
        return Verdict.UNPARSEABLE
    return Verdict.CORRECT if same else Verdict.WRONG


def _is_integer(key: str) -> bool:
    return key.isdigit() and key.isascii() and len(key) <= LONGEST_NUMBER


def _is_other(number: Fraction, truth: str) -> bool:
    """Whether a number is far from the truth's value, which is computed once for all answers to a problem."""
    value = _rough_value(truth)
    if value is None or value.is_infinite():
        return value is not None
    return abs(Decimal(number.numerator) / Decimal(number.denominator) - value) > abs(value) * _NEAR


@lru_cache(maxsize=16384)
def _rough_value(truth: str) -> Decimal | None:
    """The value of a truth that is an expression; infinite where no number equals it (a function, a tuple, a list).

    None where a comparison must decide: the truth is written as a number, is followed by its decimal, or is unknown.
    """
    value = read(truth)
    if isinstance(value, Matrix | Text) or (isinstance(value, Group) and not is_set(value)):
        return Decimal("inf")
    if isinstance(value, Collection) and value.kind == "," and len(value.items) > 1:
        return Decimal("inf")
    if not isinstance(value, Measure) or value.literal is not None or value.decimal is not None:
        return None
    if varies(value.node):
        return Decimal("inf")
    constant = constant_value(value.node, Effort(EFFORT))
    return None if constant is None else constant.long


@lru_cache(maxsize=32768)
def _grade_text(answer: str, truth: str) -> Verdict:
    key, truth_key = normalise_once(answer), normalise_once(truth)
    if not key:
        return Verdict.NO_ANSWER
    number, true_number = parse_number(key), parse_number(truth_key)
    same = key == truth_key or (number is not None and true_number is not None and same_number(number, true_number))
    return Verdict.CORRECT if same else Verdict.WRONG
