# SPDX-License-Identifier: Apache-2.0
"""A training goes on from its checkpoint in another layout, with the optimizer's states, and in the first one again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.checkpoint import FileSystemReader
from torch.distributed.checkpoint._nested_dict import flatten_state_dict
from torch.distributed.checkpoint.default_planner import _EmptyStateDictLoadPlanner
from torch.distributed.checkpoint.state_dict_loader import _load_state_dict

from tests.exactness.training.test_resume_exactness import FRESH, LOAD, STEPS, on_the_host

Results = list[list[dict[str, Any]]]
GROUPS = "megatron_patches.core.optimizer.distrib_optimizer:distributed_optimizer_load_state_dict"
NAMES = "megatron_patches.core.optimizer.optimizer:sharded_state_dict"
PARTS = "megatron_patches.core.optimizer.optimizer:load_state_dict"

TWO_DIES = {"ep": 2}
# The first stage has the one layer without experts.
FOUR_DIES = {"pp": 2, "ep": 2, "first": 1}
WARM_UP = {"rate": 1e-2, "warmup": 6}


def contents(checkpoint: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a checkpoint by its name, but for random states."""
    values: dict[str, Any] = {}
    reader = FileSystemReader(checkpoint / "dist_ckpt")
    _load_state_dict(values, storage_reader=reader, planner=_EmptyStateDictLoadPlanner(), no_dist=True)
    flat, _ = flatten_state_dict(values)
    tensors = {name: value for name, value in flat.items() if isinstance(value, torch.Tensor)}
    return {name: value for name, value in tensors.items() if not name.startswith("rng_state")}


def rates(result: dict[str, Any]) -> list[float]:
    return [step["rate"] for step in result["steps"]]


@pytest.mark.slow
@pytest.mark.proves(LOAD, FRESH, STEPS, GROUPS, NAMES, PARTS)
def test_in_another_layout_and_back(tiny: Any, run_job: Callable[..., Results], tmp_path: Path) -> None:
    first, second, third = (str(tmp_path / name / "global_step_2" / "actor") for name in ("first", "second", "third"))
    task = {"dtype": "bfloat16", "schedule": WARM_UP}
    two, four = {**task, "layout": TWO_DIES}, {**task, "layout": FOUR_DIES}
    saved = run_job(tiny, [{"task": "save", "directory": first, **two}], device="npu", world=2, limit=400)
    there = run_job(
        tiny,
        [{"task": "resume", "directory": first, **four}, {"task": "move", "directory": first, "to": second, **four}],
        device="npu", world=4, limit=400,
    )  # fmt: skip
    back = run_job(
        tiny,
        [
            {"task": "resume", "directory": second, **two},
            {"task": "move", "directory": second, "to": third, **two},
            {"task": "resume", "directory": first, **task, "layout": {}},
            {"task": "resume", "directory": first, **two, "optimizer": on_the_host()},
            {"task": "resume", "directory": first, **two, "schedule": {"rate": 5e-3, "warmup": 6}},
        ],
        device="npu", world=2, limit=400,
    )  # fmt: skip

    before, after = contents(Path(first)), contents(Path(third))
    assert before.keys() == after.keys() and sum("optimizer.state" in name for name in before) > 100
    assert [name for name in before if not torch.equal(before[name], after[name])] == []

    wanted = [rank[0]["steps"] for rank in saved]
    # The losses are those of the last stage, whose ranks hold the micro-batches that the two dies held.
    for steps, rank in zip(wanted, there[2:], strict=True):
        for step, other in zip(steps, rank[0]["steps"], strict=True):
            assert other["losses"] == pytest.approx(step["losses"], rel=1e-3)
            assert other["grad_norm"] == pytest.approx(step["grad_norm"], rel=1e-3)
    for steps, (again, _, one_for_all, host, _) in zip(wanted, back, strict=True):
        assert again["steps"] == steps
        # The host's AdamW is torch's fused one, which rounds the last bit of some updates otherwise.
        for step, other in zip(steps, host["steps"], strict=True):
            assert other["losses"] == pytest.approx(step["losses"], rel=1e-4)
            assert other["grad_norm"] == pytest.approx(step["grad_norm"], rel=1e-4)
        # Without expert parallelism sums are taken in another order.
        assert one_for_all["steps"][0]["losses"] == pytest.approx(steps[0]["losses"], rel=1e-3)
        assert one_for_all["steps"][1]["losses"] == pytest.approx(steps[1]["losses"], rel=2e-2)
    resumed = [*(rank[0] for rank in there), *(rank[number] for rank in back for number in (0, 2, 3))]
    assert [one["misplaced"] for one in resumed] == [0] * len(resumed)

    # The warm-up goes on where it was, and with another rate it is that one's from the first step on.
    assert rates(saved[0][0]) == pytest.approx([1e-2 * 2 / 6, 1e-2 * 3 / 6])
    assert all(rates(one) == rates(saved[0][0]) for one in resumed)
    assert rates(back[0][4]) == pytest.approx([5e-3 * 2 / 6, 5e-3 * 3 / 6])
