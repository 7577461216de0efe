# SPDX-License-Identifier: Apache-2.0
"""The recipe's reward: 0.33 for the format, 0.67 for the right answer.

The format is that of ``response.has_format``. The answer is the last ``\\boxed{…}`` inside ``<answer>``; it is right
when it equals the ground truth as a normalised text, or as a number (``number``). Ground truths by type:

=====================  ========================================================================
text                   compared as it is; empty or blank: no answer is right. "None" is a text.
number, boolean        as its JSON spelling (``12``, ``0.5``, ``true``)
list                   alternatives: right when one of them is (not lists in lists)
null, object, others   no answer is right
=====================  ========================================================================

Grading takes linear time in the response, uses no ``eval`` and no computer algebra, and never raises.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any

from verl_patches.utils.reward_score.number import parse_number, same_number
from verl_patches.utils.reward_score.response import LONGEST_ANSWER, answer_part, has_format, last_box

FORMAT_WEIGHT, ACCURACY_WEIGHT = 0.33, 0.67

# Written forms without a meaning of their own. A text has at most LONGEST_ANSWER characters here, and no pattern can
# match one text in two ways.
_SAME_CHARACTER = str.maketrans({"−": "-", "–": "-", "\u00a0": " ", "\u2009": " ", "\u202f": " ", "，": ",", "％": "%"})  # noqa: RUF001
_NO_MEANING = re.compile(r"\\left(?![a-z])|\\right(?![a-z])|\\displaystyle(?![a-z])|\\[!,;: ]|\\?\$")
_FRACTION = re.compile(r"\\[dt]frac(?![a-z])")
_SPACE = re.compile(r"\s+")
_SPACE_BY_SIGN = re.compile(r" ?([^\w\s]) ?")


def compute_score(
    data_source: str, solution_str: str, ground_truth: Any, extra_info: Any = None, **kwargs: Any
) -> dict[str, float]:
    """Grades one response; the signature is the one verl's naive reward manager calls.

    Returns ``score`` = 0.33 ``format`` + 0.67 ``acc``, with ``format`` and ``acc`` 0.0 or 1.0. Only
    ``solution_str`` and ``ground_truth`` matter; a response that is no text scores 0.
    """
    if not isinstance(solution_str, str):
        return {"score": 0.0, "acc": 0.0, "format": 0.0}
    form = float(has_format(solution_str))
    acc = float(is_right(solution_str, ground_truth))
    return {"score": FORMAT_WEIGHT * form + ACCURACY_WEIGHT * acc, "acc": acc, "format": form}


def is_right(response: str, ground_truth: Any) -> bool:
    """Whether the boxed answer of the response equals the ground truth, or one of its alternatives."""
    part = answer_part(response)
    answer = None if part is None else last_box(part)
    return answer is not None and any(same_answer(answer, wanted) for wanted in _alternatives(ground_truth))


def same_answer(a: str, b: str) -> bool:
    """Equality of two answers: as normalised texts, then as numbers. Symmetric; a blank text equals nothing."""
    if len(a) > LONGEST_ANSWER or len(b) > LONGEST_ANSWER:
        return False
    a, b = normalise(a), normalise(b)
    if not a or not b:
        return False
    if a == b:
        return True
    left, right = parse_number(a), parse_number(b)
    return left is not None and right is not None and same_number(left, right)


def normalise(answer: str) -> str:
    """One spelling for texts that differ only in what LaTeX does not show, in spaces, or in a final full stop.

    Dollar signs, ``\\left``, ``\\right``, ``\\displaystyle`` and thin spaces go; ``\\dfrac`` and ``\\tfrac`` become
    ``\\frac``; unicode minus signs and non-breaking spaces become ASCII; spaces go where they touch a sign and become
    one space elsewhere, so that "1 1/2" does not become "11/2".
    """
    text = answer.translate(_SAME_CHARACTER)
    text = _FRACTION.sub(r"\\frac", _NO_MEANING.sub(" ", text))
    text = _SPACE_BY_SIGN.sub(r"\1", _SPACE.sub(" ", text)).strip()
    return text[:-1].rstrip() if text.endswith(".") else text


def _alternatives(ground_truth: Any) -> Iterator[str]:
    for value in ground_truth if isinstance(ground_truth, list | tuple) else (ground_truth,):
        if isinstance(value, str):
            yield value
        elif isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
            try:
                yield json.dumps(value)
            except ValueError:  # an integer beyond Python's limit of digits: longer than any answer
                continue
