# SPDX-License-Identifier: Apache-2.0
"""A training that is resumed from verl's checkpoint in fresh processes goes on as the one that was saved."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from recipe.runfile.config import load
from recipe.runfile.overrides import optimizer_config
from recipe.runfile.schema import HOST

Results = list[list[dict[str, Any]]]
LOAD = "verl_patches.utils.checkpoint.megatron_checkpoint_manager:load_checkpoint"

FRESH = "megatron_patches.core.optimizer.distrib_optimizer:distributed_optimizer_state_dict"
STEPS = "megatron_patches.core.optimizer.distrib_optimizer:set_main_param_and_optimizer_states"
RANKS = (
    "verl_patches.workers.megatron_workers:save_checkpoint",
    "verl_patches.workers.megatron_workers:load_checkpoint",
)
STATES = "megatron_patches.core.optimizer.distrib_optimizer:get_main_param_and_optimizer_states"


def check(tiny: Any, run_job: Callable[..., Results], directory: Path, **options: Any) -> None:
    # The learning rate rises in every step, before the resume and after it.
    task = {"layout": {"ep": 2}, "dtype": "bfloat16", "warmup": 4, "directory": str(directory)}
    saved = run_job(tiny, [{"task": "save", **task}], device="npu", world=2, **options)
    resumed = run_job(tiny, [{"task": "resume", **task}], device="npu", world=2, **options)
    ((first,), (second,)) = saved
    assert not torch.equal(first["host"], second["host"]), "each rank has random states of its own"
    for (before,), (after,) in zip(saved, resumed, strict=True):
        assert torch.equal(after["host"], before["host"]) and torch.equal(after["device"], before["device"])
        assert before["steps"][0]["rate"] < before["steps"][1]["rate"], "the schedule goes on"
        assert after["steps"] == before["steps"]
        # The state of the optimizer matters: the second step depends on the moments of the first ones.
        assert before["steps"][0]["losses"] != before["steps"][1]["losses"]


@pytest.mark.proves(LOAD, FRESH, STEPS, *RANKS)
def test_without_mindspeed(tiny: Any, run_job: Callable[..., Results], tmp_path: Path) -> None:
    check(tiny, run_job, tmp_path / "global_step_2" / "actor")


def on_the_host() -> dict[str, Any]:
    """verl's `override_optimizer_config` of a run file with optimizer = "host"."""
    run = load(Path(__file__).resolve().parents[3] / "configs" / "sim.toml")
    return optimizer_config(dataclasses.replace(run, actor=dataclasses.replace(run.actor, optimizer=HOST)))


@pytest.mark.proves(LOAD, FRESH)
def test_with_megatrons_optimizer_on_the_host(tiny: Any, run_job: Callable[..., Results], tmp_path: Path) -> None:
    layout = {"layout": {"ep": 2}, "dtype": "bfloat16"}
    task = {**layout, "directory": str(tmp_path / "global_step_2" / "actor"), "optimizer": on_the_host()}
    saved = run_job(tiny, [{"task": "save", **task}, {"task": "steps", "steps": 4, **layout}], device="npu", world=2)
    resumed = run_job(tiny, [{"task": "resume", **task}], device="npu", world=2)
    for (before, on_the_die), (after,) in zip(saved, resumed, strict=True):
        assert after["steps"] == before["steps"]
        # The same updates within rounding: here the losses differ by 1e-6 at first, and by 3e-3 a step later.
        for host, die, tolerance in zip(before["steps"], on_the_die["steps"][2:], (1e-4, 1e-2), strict=True):
            assert host["losses"] == pytest.approx(die["losses"], rel=tolerance) and host["changed"] == die["changed"]


@pytest.mark.mindspeed
@pytest.mark.proves(LOAD)
def test_with_mindspeed(tiny: Any, run_job: Callable[..., Results], tmp_path: Path, mindspeed_upstream: Path) -> None:
    check(tiny, run_job, tmp_path / "global_step_2" / "actor", mindspeed=mindspeed_upstream)


@pytest.mark.mindspeed
@pytest.mark.proves(LOAD, STATES, STEPS)
def test_with_mindspeeds_optimizer_in_host_memory(
    tiny: Any, run_job: Callable[..., Results], tmp_path: Path, mindspeed_upstream: Path
) -> None:
    swapping = {"mindspeed": mindspeed_upstream, "transformer": {"swap_optimizer": True}}
    check(tiny, run_job, tmp_path / "global_step_2" / "actor", **swapping)
