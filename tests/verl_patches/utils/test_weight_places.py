# SPDX-License-Identifier: Apache-2.0
"""Weights that stay on the die until the sync: the same bytes as with verl's order of offloads, and fewer copies."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from verl.utils.megatron_utils import load_megatron_model_to_gpu

from recipe.plan.subject import Subject
from recipe.plan.traffic import lengths, traffic
from tests.recipe.plan.layouts import Layout, Made
from tests.recipe.plan.workers import Workers
from verl_patches.utils.weight_places import weights_to_host

RANKS = "tests.verl_patches.utils.weight_places_process"
# Every way from an update to the next sync: at once, behind a save, by a validation with a save behind it, behind a
# pass; and a run that goes on from its checkpoint.
PHASES = (
    *("generate", "log_prob", "ref", "update"),
    *("generate", "log_prob", "ref", "update", "save"),
    *("generate", "update", "generate", "save", "generate"),
    *("update", "log_prob", "ref", "generate", "update", "save", "update", "load", "generate"),
)
# What is spared in the phases of an ordinary step: the actor's weights on their way to the die and to the host, and
# page-locked memory for whose weights.
SPARED = {
    "generate": (1, 0, "actor"),
    "log_prob": (0, 0, "actor"),
    "ref": (0, 0, "reference"),
    "update": (0, 1, "actor"),
}


def test_a_plain_model_has_one_place_on_the_host_and_never_an_old_copy_there() -> None:
    model = torch.nn.Linear(4, 3, device="npu")
    places = set()
    for number in range(3):
        with torch.no_grad():
            model.weight.fill_(number)
        for _ in range(2):
            weights_to_host([model])
        assert model.weight.is_pinned() and (model.weight == number).all()
        places.add(model.weight.data_ptr())
        for _ in range(2):
            load_megatron_model_to_gpu([model], load_grad=False)
        assert model.weight.is_npu and (model.weight == number).all()
    assert len(places) == 1
    model.bfloat16()
    weights_to_host([model])
    assert model.weight.dtype == torch.bfloat16 and model.weight.data_ptr() not in places


LAYOUTS: dict[str, dict[str, Any]] = {
    "ep2": {"dies": 2},
    "ep2, direct sync": {"dies": 2, "direct_sync": True},
    "two uneven stages; rollout tp2": {"dies": 4, "stages": (1, 3), "rollout_tensor": 2},
    "ep2, optimizer on the host": {"dies": 2, "optimizer": "host"},
}
FAST = ("ep2",)


@pytest.mark.proves(
    "verl_patches.utils.megatron_utils:offload_megatron_model_to_cpu",
    "verl_patches.workers.megatron_workers:update_actor",
    "verl_patches.workers.megatron_workers:save_checkpoint",
)
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in LAYOUTS]
)
def test_the_same_weights_everywhere_with_fewer_copies(
    workers_of: Callable[[str, bool], Workers], tiny_made: Callable[[int], Made], tmp_path: Path, name: str
) -> None:
    layout = Layout(**LAYOUTS[name])
    planned, workers, made = layout.planned(), workers_of(RANKS, False), tiny_made(layout.expert_width)
    stock, ours = (
        workers.run(planned, made, tmp_path / str(stock), stock=stock, phases=PHASES) for stock in (True, False)
    )
    for rank, (of_stock, of_ours) in enumerate(zip(stock, ours, strict=True)):
        check_rank(of_stock, of_ours)
        stage = rank * planned.layout.actor_pipeline // planned.layout.dies
        for counted, stays in ((of_stock, False), (of_ours, True)):
            check_plan(counted, planned, stage, stays)


def check_rank(of_stock: dict[str, Any], of_ours: dict[str, Any]) -> None:
    weights, phases = of_ours["actor"], list(zip(of_stock["phases"], of_ours["phases"], strict=True))
    for number, (stock, ours) in enumerate(phases):
        where = f"phase {number}, {ours['name']}"
        assert (stock["weights"], stock["rollout"]) == (ours["weights"], ours["rollout"]), where
        assert bool(ours["rollout"]) == (ours["name"] == "generate"), where
        assert not stock["on_die"] and not stock["gradients"] and not ours["gradients"], where
        assert ours["peak"] <= stock["peak"], where
        # What lies on the host has one place for the whole run.
        assert ours["places"] == of_ours["phases"][0]["places"], where
    seen = [ours["weights"] for _, ours in phases]
    assert len(set(seen)) == 1 + sum(ours["name"] == "update" for _, ours in phases), "each update changes them"
    staying = [ours["on_die"] for _, ours in phases]
    for number, (_, ours) in enumerate(phases):
        expected = ours["name"] == "update" or (ours["name"] == "save" and staying[number - 1])
        assert staying[number] == expected, f"phase {number}, {ours['name']}"
    # The second step: page-locked memory is there, and so are the optimizer's states.
    for stock, ours in phases[4:8]:
        to_device, to_host, whose = SPARED[ours["name"]]
        expected = {"to_device": to_device * weights, "to_host": to_host * weights, "locked": of_ours[whose]}
        assert {way: stock[way][1] - ours[way][1] for way in expected} == expected, ours["name"]


def check_plan(counted: dict[str, Any], planned: Subject, stage: int, stays: bool) -> None:
    """Of the second step; counted besides are the batches, and what a step tells the driver."""
    actor = dataclasses.replace(planned.config.actor, keep_until_sync=stays)
    run = dataclasses.replace(planned, config=dataclasses.replace(planned.config, actor=actor))
    moved = sum(phase["to_device"][1] + phase["to_host"][1] - phase["read"] for phase in counted["phases"][4:8])
    offloads = traffic(run, lengths(run), [stage])["host, offloads"]
    assert offloads < moved < 1.1 * offloads, (moved, offloads)
