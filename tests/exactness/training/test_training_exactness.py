# SPDX-License-Identifier: Apache-2.0
"""verl's Megatron model, loaded from our checkpoint, against Hugging Face; npu against cpu; two processes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

Results = list[list[dict[str, Any]]]
EVEN = {"ep": 2}
UNEVEN = {"pp": 2, "first": 1}
TENSOR = {"tp": 2, "ep": 2}


@pytest.fixture(scope="module")
def alone(model: Any, run_job: Callable[..., Results]) -> list[dict[str, Any]]:
    """What one npu process computes."""
    tasks = [
        {"task": "log_probs", "backward": True},
        {"task": "step", "layout": {}},
        {"task": "step", "layout": {}, "dtype": "bfloat16"},
    ]
    return run_job(model, tasks, device="npu")[0]


@pytest.fixture(scope="module")
def grouped(many_experts: Any, run_job: Callable[..., Results]) -> list[dict[str, Any]]:
    """What one npu process computes with many experts: with their groups, and as verl leaves them, without."""
    return run_job(many_experts, [{"task": "log_probs"}, {"task": "log_probs", "derive": False}], device="npu")[0]


@pytest.fixture(scope="module")
def pair(model: Any, run_job: Callable[..., Results]) -> Results:
    """What two npu processes compute in each layout; pair[rank][task]."""
    tasks = [{"task": "step", "layout": layout} for layout in (EVEN, UNEVEN, TENSOR)]
    return run_job(model, tasks, device="npu", world=2)


def test_the_model_equals_hugging_face(model: Any, alone: list[dict[str, Any]]) -> None:
    difference, other = model.distance(alone[0])
    print(f"max |delta log-prob| {difference:.2g}, {other} other argmaxes")
    assert difference <= 1e-5
    assert other == 0


def test_256_experts_in_groups_equal_hugging_face(many_experts: Any, grouped: list[dict[str, Any]]) -> None:
    difference, other = many_experts.distance(grouped[0])
    assert difference <= 1e-5
    assert other == 0


def test_without_the_derived_groups_256_experts_do_not(many_experts: Any, grouped: list[dict[str, Any]]) -> None:
    difference, _ = many_experts.distance(grouped[1])
    assert difference > 0.1


def test_npu_equals_cpu(model: Any, alone: list[dict[str, Any]], run_job: Callable[..., Results]) -> None:
    on_cpu = run_job(model, [{"task": "log_probs", "backward": True}], device="cpu")[0][0]
    assert alone[0]["loss"] == pytest.approx(on_cpu["loss"], rel=1e-6)
    assert alone[0]["grad_norm"] == pytest.approx(on_cpu["grad_norm"], rel=1e-5)
    assert alone[0]["without_gradient"] == on_cpu["without_gradient"] == []
    assert 1e-3 < on_cpu["grad_norm"] < 1e3


@pytest.mark.proves("verl_patches.models.mcore.patch_v012:apply_patch")
@pytest.mark.parametrize("task", [0, 1, 2], ids=["ep2", "pp2", "tp2"])
def test_a_step_in_two_processes_equals_one_process(task: int, pair: Results, alone: list[dict[str, Any]]) -> None:
    losses = [loss for rank in pair for loss in rank[task]["losses"]]
    copies = len(losses) // len(alone[1]["losses"])  # tensor-parallel ranks report the same
    assert sorted(losses) == pytest.approx(sorted(alone[1]["losses"] * copies), rel=1e-5)
    for rank in pair:
        assert rank[task]["success"]
        assert rank[task]["grad_norm"] == pytest.approx(alone[1]["grad_norm"], rel=1e-4)


def test_a_bf16_step_trains(model: Any, alone: list[dict[str, Any]]) -> None:
    exact, step = alone[1:]
    assert step["success"]
    assert step["grad_norm"] == pytest.approx(exact["grad_norm"], rel=0.1)
    # Of 256 experts some are chosen by no token, and bfloat16 chooses a few others.
    everyone_is_chosen = model.model.config.n_routed_experts < 256
    assert step["changed"] == (step["parameters"] if everyone_is_chosen else pytest.approx(exact["changed"], rel=0.1))
