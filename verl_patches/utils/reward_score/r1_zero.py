# SPDX-License-Identifier: Apache-2.0
"""The reward function that a run names in ``custom_reward_function.path``; the recipe's reward is its default.

``custom_reward_function.reward_kwargs`` may name another one (``verifier``) or weights of several (``mix``); see
``verifiers``. Grading takes linear time in the response, uses no ``eval`` and no computer algebra, and raises only for
a wrong configuration.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from verl_patches.utils.reward_score.grade import same_answer
from verl_patches.utils.reward_score.normalise import normalise
from verl_patches.utils.reward_score.verifiers import DEFAULT, get_verifier, verify

__all__ = ["compute_score", "normalise", "same_answer"]


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: Any,
    extra_info: Any = None,
    verifier: str = DEFAULT,
    mix: Mapping[str, float] | None = None,
    **kwargs: Any,
) -> dict[str, Any]:
    """Grades one response; the signature is the one verl's naive reward manager calls.

    Returns ``score`` (the reward), ``acc`` and ``format`` (0.0 or 1.0) and ``verdict``. Only the response and the
    ground truth matter. Raises ValueError for an unknown verifier.
    """
    return verify(get_verifier(verifier, mix), solution_str, ground_truth).as_dict()
