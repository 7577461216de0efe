# SPDX-License-Identifier: Apache-2.0
"""The file that verl loads as ``custom_reward_function.path``: ``recipe.reward``, called as verl's managers call.

The reward is ``r1_zero`` unless ``custom_reward_function.reward_kwargs`` names another (``verifier``) or weights of
several (``mix``); see ``recipe.reward.verifiers``. Grading takes linear time in the response, uses no ``eval`` and no
computer algebra, and raises only for a wrong configuration.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from recipe.reward.copied import problem_in
from recipe.reward.processes.batch import Sample, pool_for
from recipe.reward.verifiers import DEFAULT, get_verifier, verify


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: Any,
    extra_info: Any = None,
    verifier: str = DEFAULT,
    mix: Mapping[str, float] | None = None,
    tier3: str | None = None,
    refuse_copied: bool = True,
    **kwargs: Any,
) -> dict[str, Any]:
    """Grades one response; the signature is the one verl's naive reward manager calls.

    Returns ``score`` (the reward), ``acc`` and ``format`` (0.0 or 1.0) and ``verdict``. Work copied from the problem in
    ``extra_info["problem"]`` earns nothing, unless ``refuse_copied`` is false; nothing else of it matters. Raises
    ValueError for an unknown verifier, and for ``tier3``, which grades in batches only.
    """
    if tier3 is not None:
        raise ValueError("tier3 needs verl's batch reward manager: [reward] workers of 1 or more in the run file")
    problem = problem_in(extra_info) if refuse_copied else None
    return verify(get_verifier(verifier, mix), solution_str, ground_truth, None, problem).as_dict()


def compute_scores(
    data_sources: Sequence[str],
    solution_strs: Sequence[str],
    ground_truths: Sequence[Any],
    extra_infos: Sequence[Any] | None = None,
    verifier: str = DEFAULT,
    mix: Mapping[str, float] | None = None,
    workers: int | None = None,
    tier3: str | None = None,
    refuse_copied: bool = True,
    **kwargs: Any,
) -> list[dict[str, Any]]:
    """Grades a batch in processes of its own; the signature is the one verl's batch reward manager calls.

    Returns for each response what ``compute_score`` returns, and ``lost_workers``: how many grading processes died or
    were ended while they had it. ``tier3`` names the grader that is asked about what cannot be read; None: nobody is.
    Raises ``CanaryError`` when samples with known results are graded otherwise.
    """
    samples: list[Sample] = list(zip(solution_strs, ground_truths, strict=True))
    if refuse_copied and extra_infos is not None:
        problems = map(problem_in, extra_infos)
        samples = [(*sample, problem) for sample, problem in zip(samples, problems, strict=True)]
    graded = pool_for(verifier, mix, workers, tier3).grade(samples)
    return [{**result.as_dict(), "lost_workers": lost} for result, lost in graded]
