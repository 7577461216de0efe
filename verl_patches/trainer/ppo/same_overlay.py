# SPDX-License-Identifier: Apache-2.0
"""No training unless every worker runs the same patches on the same upstreams.

A worker that a patch has not reached goes on without a word, and its gradients are averaged with the others'.
"""

# NPU-ADAPTATION: workers whose patches differ do not train together

from __future__ import annotations

from typing import Any

import ray

from recipe.overlay import OverlayError, Snapshot, compare, snapshot
from recipe.recorder import record

# The worker groups a trainer may have; several of them may be the same processes.
GROUPS = ("actor_rollout_wg", "ref_policy_wg", "critic_wg", "rm_wg")
ANSWER_S = 300.0


def require_same_overlay(trainer: Any) -> None:
    """Ask every worker of a trainer's groups for its overlay, compare within each group, and record the verdict.

    Raises:
        OverlayError: workers differ; names host, process, role and patch of each that does.
    """
    groups = _groups(trainer)
    answers = [
        ray.get([worker.__ray_call__.remote(_snapshot) for worker in group], timeout=ANSWER_S) for group in groups
    ]
    differences = [line for snapshots in answers for line in compare(snapshots)]
    patches = sorted({patch for snapshots in answers for snapshot in snapshots for patch in snapshot["patches"]})
    record("overlay", workers=sum(map(len, groups)), patches=len(patches), differences=differences)
    if differences:
        raise OverlayError(
            f"the workers do not run the same patches, so nothing is trained: {'; '.join(differences)}; "
            "`python -m recipe patches status RUN_DIR` shows what was live where"
        )


def _groups(trainer: Any) -> list[list[Any]]:
    """The workers of each group; groups of the same processes count once."""
    distinct: dict[frozenset[str], list[Any]] = {}
    for name in GROUPS:
        group = getattr(trainer, name, None)
        if group is not None:
            distinct.setdefault(frozenset(worker._actor_id.hex() for worker in group.workers), list(group.workers))
    return list(distinct.values())


def _snapshot(worker: Any) -> Snapshot:
    """The overlay's state in the worker's process, where this runs."""
    return snapshot()
