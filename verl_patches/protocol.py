# SPDX-License-Identifier: Apache-2.0
"""Batches from several workers are joined even though their clocks disagree."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import Any

from recipe.overlay import patch

TIMING = "timing"


@patch(
    "verl.protocol:DataProto.concat",
    why="meta_info must be equal on all workers, and the 'timing' floats, though reduced over the ranks, can differ in "
    "the last bits between NPUs",
    upstream="verl==0.6.1",
    fingerprint="sha256:25dc633cd5984d95730db81347f56395274aa29a93ae0348f71336318a0af4d7",
    remove_when="verl's concat no longer compares 'timing' (verl pull request 4030) in the pin",
)
def concat(original: Callable[..., Any], data: list[Any]) -> Any:  # NPU-ADAPTATION: timings are merged, not compared
    """`DataProto.concat` with each `meta_info["timing"]` value the largest over the workers."""
    timings = [item.meta_info[TIMING] for item in data if TIMING in item.meta_info]
    if len(timings) < 2 or not all(isinstance(timing, dict) for timing in timings):
        return original(data)
    stripped = []
    for item in data:
        # The caller keeps its batches as they are: only the copies lose their timing.
        item = copy(item)
        item.meta_info = {key: value for key, value in item.meta_info.items() if key != TIMING}
        stripped.append(item)
    joined = original(stripped)
    joined.meta_info[TIMING] = {
        key: max(timing[key] for timing in timings if key in timing) for timing in timings for key in timing
    }
    return joined
