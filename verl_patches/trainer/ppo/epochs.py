# SPDX-License-Identifier: Apache-2.0
"""The number of the epoch that a step belongs to, also when its process began in the middle of the run."""

# NPU-ADAPTATION: epochs follow from the step, also after a resume

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

METRIC = "training/epoch"
_steps_per_epoch: int | None = None


def count_epochs(steps_per_epoch: int) -> None:
    """Note for `with_epoch` how many steps an epoch of this process's training has."""
    global _steps_per_epoch
    _steps_per_epoch = steps_per_epoch


def with_epoch(metrics: Mapping[str, Any], step: int) -> Mapping[str, Any]:
    """`metrics` of `step` (from 1) with the epoch (from 0) that follows from it, where they have an epoch."""
    if METRIC not in metrics or not _steps_per_epoch:
        return metrics
    return {**metrics, METRIC: (step - 1) // _steps_per_epoch}
