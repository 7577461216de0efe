# SPDX-License-Identifier: Apache-2.0
"""verl's Megatron model as MindSpeed adapts it, against Hugging Face and against itself without MindSpeed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

Results = list[list[dict[str, Any]]]
SCALE = "mindspeed_patches.core.transformer.flash_attention.flash_attention.adaptor:dot_product_attention_forward_impl"
EXPERT_PARALLEL = {"task": "step", "layout": {"ep": 2}}
TASKS = [
    {"task": "log_probs", "backward": True},
    {"task": "step", "layout": {}},
    {"task": "elements", "layout": {}, "dtype": "bfloat16"},
]
pytestmark = pytest.mark.mindspeed


@pytest.fixture(scope="module")
def adapted(model: Any, run_job: Callable[..., Results], mindspeed_upstream: Path) -> list[dict[str, Any]]:
    return run_job(model, TASKS, device="npu", mindspeed=mindspeed_upstream)[0]


@pytest.fixture(scope="module")
def plain(model: Any, run_job: Callable[..., Results]) -> list[dict[str, Any]]:
    return run_job(model, TASKS, device="npu")[0]


@pytest.mark.proves(SCALE)
def test_the_model_equals_hugging_face(model: Any, adapted: list[dict[str, Any]]) -> None:
    difference, other = model.distance(adapted[0])
    print(f"MindSpeed with the softmax scale: max |delta log-prob| {difference:.2g}, {other} other argmaxes")
    assert difference <= 1e-5
    assert other == 0


def test_with_upstreams_softmax_scale_it_does_not(
    tiny: Any, run_job: Callable[..., Results], mindspeed_upstream: Path
) -> None:
    (alone,) = run_job(tiny, TASKS[:1], device="npu", mindspeed=mindspeed_upstream, reverted=(SCALE,))
    difference, other = tiny.distance(alone[0])
    print(f"MindSpeed as it is: max |delta log-prob| {difference:.2g}, {other} other argmaxes")
    assert difference > 0.1
    assert other > 0


def test_the_backward_equals_that_without_mindspeed(adapted: list[dict[str, Any]], plain: list[dict[str, Any]]) -> None:
    assert adapted[0]["loss"] == pytest.approx(plain[0]["loss"], rel=1e-6)
    assert adapted[0]["grad_norm"] == pytest.approx(plain[0]["grad_norm"], rel=1e-5)
    assert adapted[0]["without_gradient"] == []


def test_experts_have_a_weight_each_and_run_in_the_grouped_kernel(
    model: Any, adapted: list[dict[str, Any]], plain: list[dict[str, Any]]
) -> None:
    config = model.model.config
    dense, layers, experts = config.first_k_dense_replace, config.num_hidden_layers, config.n_routed_experts
    names = [name for name in adapted[0]["parameters"] if ".experts.linear_fc" in name]
    # The names that verl's weight converter and our checkpoint know.
    layer = [f"linear_fc{part}.weight{expert}" for part in (1, 2) for expert in range(experts)]
    assert names == [f"decoder.layers.{n}.mlp.experts.{name}" for n in range(dense, layers) for name in layer]
    assert sorted(adapted[0]["parameters"]) == sorted(plain[0]["parameters"])
    # One forward.
    assert adapted[0]["fused"]["mindspeed.npu_gmm"] == 2 * (layers - dense)
    assert adapted[0]["fused"]["npu_fusion_attention"] == layers
    assert "mindspeed.npu_gmm" not in plain[0]["fused"] and "npu_fusion_attention" not in plain[0]["fused"]


def test_a_step_equals_that_without_mindspeed(
    model: Any, adapted: list[dict[str, Any]], plain: list[dict[str, Any]]
) -> None:
    assert adapted[1]["success"]
    assert adapted[1]["losses"] == pytest.approx(plain[1]["losses"], rel=1e-5)
    assert adapted[1]["grad_norm"] == pytest.approx(plain[1]["grad_norm"], rel=1e-4)
    assert adapted[1]["changed"] == plain[1]["changed"]
    # Of 256 experts some are chosen by no token.
    if model.model.config.n_routed_experts < 256:
        assert adapted[1]["changed"] == adapted[1]["parameters"]


def test_a_step_of_two_expert_parallel_processes_equals_that_of_one(
    model: Any, run_job: Callable[..., Results], mindspeed_upstream: Path, plain: list[dict[str, Any]]
) -> None:
    pair = run_job(model, [EXPERT_PARALLEL], device="npu", world=2, mindspeed=mindspeed_upstream)
    losses = [loss for rank in pair for loss in rank[0]["losses"]]
    assert sorted(losses) == pytest.approx(sorted(plain[1]["losses"]), rel=1e-5)
    for rank in pair:
        assert rank[0]["grad_norm"] == pytest.approx(plain[1]["grad_norm"], rel=1e-4)


def test_the_checkpoint_loads_as_without_mindspeed(adapted: list[dict[str, Any]], plain: list[dict[str, Any]]) -> None:
    """In bfloat16, with the router's bias in float32: our patch of Float16Module outlives MindSpeed's."""
    with_it, without = ({(name, at): piece for name, at, piece in one[2]["pieces"]} for one in (adapted, plain))
    assert with_it.keys() == without.keys()
    assert any(name.endswith("expert_bias") for name, _ in with_it)
    for (name, at), piece in with_it.items():
        assert piece.dtype == (torch.float32 if name.endswith("expert_bias") else torch.bfloat16), name
        assert torch.equal(piece, without[name, at]), f"{name} at {at}"
