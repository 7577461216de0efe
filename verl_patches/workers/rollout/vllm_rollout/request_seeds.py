# SPDX-License-Identifier: Apache-2.0
"""The seeds of requests: from a column of the batch into each request's sampling parameters."""

# NPU-ADAPTATION: each request is sampled with a seed of its own

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

# The column of a batch that has them: int64 of [rows].
SEEDS = "request_seeds"


def seeded(sampling_params: Any, seeds: Sequence[int]) -> list[Any]:
    """vLLM's sampling parameters for each request, that differ in the seed."""
    each = [sampling_params.clone() for _ in seeds]
    for one, seed in zip(each, seeds, strict=True):
        one.seed = int(seed)
    return each
