# SPDX-License-Identifier: Apache-2.0
"""How many samples of a step had each verdict of the reward."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from recipe.overlay import patch
from recipe.reward.verdict import Verdict


@patch(
    "verl.trainer.ppo.metric_utils:compute_data_metrics",
    why="verl keeps what a reward function returns beside the score, but logs none of it: a reward that cannot read "
    "the answers looks like a model that cannot find them",
    upstream="verl==0.6.1",
    fingerprint="sha256:2d6ca237799df6eeeb296b3c261ed44c4febac3a2b3051a961f298f4bca487d6",
    remove_when="verl logs what reward functions return in training too",
)
def compute_data_metrics(
    original: Callable[..., dict[str, Any]], batch: Any, use_critic: bool = True
) -> dict[str, Any]:
    # NPU-ADAPTATION: adds the counts of the reward's verdicts to the metrics of the step
    return {**original(batch, use_critic), **verdict_counts(batch.non_tensor_batch)}


def verdict_counts(columns: dict[str, Any]) -> dict[str, int]:
    """``reward/<verdict>`` for each Verdict and ``reward/lost_workers``, as numbers of samples and of processes.

    Args:
        columns: arrays by name, one item a sample; without ``verdict``, or ``lost_workers``, these are left out.
    """
    counts: dict[str, int] = {}
    if "verdict" in columns:
        by_verdict = Counter(map(str, columns["verdict"]))
        counts = {f"reward/{verdict.value}": by_verdict[verdict.value] for verdict in Verdict}
    if "lost_workers" in columns:
        counts["reward/lost_workers"] = int(sum(columns["lost_workers"]))
    return counts
