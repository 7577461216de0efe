# SPDX-License-Identifier: Apache-2.0
"""The recipe's reward: 0.33 for the format, 0.67 for the right answer.

The format is that of ``response.has_format``. The answer is the last ``\\boxed{…}`` inside ``<answer>``, graded by
``grade``: as a normalised text, then by its value in a closed grammar. Grading takes linear time in the response, uses
no ``eval`` and no computer algebra, and never raises.
"""

from __future__ import annotations

from typing import Any

from verl_patches.utils.reward_score.grade import grade_response, same_answer
from verl_patches.utils.reward_score.normalise import normalise
from verl_patches.utils.reward_score.response import has_format
from verl_patches.utils.reward_score.verdict import Verdict

__all__ = ["ACCURACY_WEIGHT", "FORMAT_WEIGHT", "compute_score", "normalise", "same_answer"]

FORMAT_WEIGHT, ACCURACY_WEIGHT = 0.33, 0.67


def compute_score(
    data_source: str, solution_str: str, ground_truth: Any, extra_info: Any = None, **kwargs: Any
) -> dict[str, float]:
    """Grades one response; the signature is the one verl's naive reward manager calls.

    Returns ``score`` = 0.33 ``format`` + 0.67 ``acc``, with ``format`` and ``acc`` 0.0 or 1.0. Only
    ``solution_str`` and ``ground_truth`` matter; a response that is no text scores 0.
    """
    form = float(isinstance(solution_str, str) and has_format(solution_str))
    acc = float(grade_response(solution_str, ground_truth) is Verdict.CORRECT)
    return {"score": FORMAT_WEIGHT * form + ACCURACY_WEIGHT * acc, "acc": acc, "format": form}
