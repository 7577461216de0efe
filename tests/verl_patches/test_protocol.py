# SPDX-License-Identifier: Apache-2.0
"""Joining the batches of workers whose timings differ in the last bits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from verl.protocol import DataProto


def batch(value: int, **meta: Any) -> DataProto:
    return DataProto.from_dict(tensors={"x": torch.full((2, 1), value)}, meta_info=meta)


@pytest.mark.proves("verl_patches.protocol:concat")
def test_workers_with_different_timings_are_joined() -> None:
    parts = [
        batch(1, timing={"gen": 1.0000001, "min": 0.5}, temperature=0.9),
        batch(2, timing={"gen": 1.0000002, "min": 0.25}, temperature=0.9),
    ]
    joined = DataProto.concat(parts)
    assert joined.batch["x"].flatten().tolist() == [1, 1, 2, 2]
    assert joined.meta_info == {"timing": {"gen": 1.0000002, "min": 0.5}, "temperature": 0.9}
    assert parts[0].meta_info["timing"] == {"gen": 1.0000001, "min": 0.5}, "the parts stay as they were"


def test_other_differences_are_still_refused() -> None:
    parts = [batch(1, timing={"gen": 1.0}, temperature=0.9), batch(2, timing={"gen": 2.0}, temperature=1.0)]
    with pytest.raises(AssertionError, match="temperature"):
        DataProto.concat(parts)


def test_metrics_and_batches_without_timing_are_joined_as_before() -> None:
    joined = DataProto.concat([batch(1, metrics={"loss": 1.0}), batch(2, metrics={"loss": 3.0})])
    assert joined.meta_info["metrics"] == {"loss": [1.0, 3.0]}
    assert "timing" not in joined.meta_info
