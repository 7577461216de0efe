# SPDX-License-Identifier: Apache-2.0
"""verl's Megatron model, loaded from our checkpoint, against Hugging Face; npu against cpu; layouts against one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

Results = list[list[dict[str, Any]]]
EVEN = {"ep": 2}
UNEVEN = {"pp": 2, "first": 1}
SPLIT = {"tp": 2}


@pytest.fixture(scope="module")
def alone(tiny: Any, many_experts: Any, run_job: Callable[..., Results]) -> list[dict[str, Any]]:
    """Everything one npu process computes: tiny, many experts, many experts without derived groups, a step, bf16."""
    tasks = [
        {"task": "log_probs", "backward": True},
        {"task": "log_probs", **many_experts.fields},
        {"task": "log_probs", **many_experts.fields, "derive": False},
        {"task": "step", "layout": {}},
        {"task": "elements", "layout": {}, "dtype": "bfloat16"},
        {"task": "step", "layout": {}, "dtype": "bfloat16"},
    ]
    return run_job(tiny, tasks, device="npu")[0]


@pytest.fixture(scope="module")
def pair(tiny: Any, run_job: Callable[..., Results]) -> Results:
    """What two npu processes compute in each layout; pair[rank][task]."""
    tasks = [
        *({"task": "elements", "layout": layout, "dtype": "float32"} for layout in (EVEN, UNEVEN, SPLIT)),
        {"task": "step", "layout": EVEN},
        {"task": "step", "layout": UNEVEN},
    ]
    return run_job(tiny, tasks, device="npu", world=2)


def test_tiny_model_equals_hugging_face(tiny: Any, alone: list[dict[str, Any]]) -> None:
    difference, other = tiny.distance(alone[0])
    assert difference <= 1e-5
    assert other == 0


def test_256_experts_in_groups_equal_hugging_face(many_experts: Any, alone: list[dict[str, Any]]) -> None:
    difference, other = many_experts.distance(alone[1])
    assert difference <= 1e-5
    assert other == 0


def test_without_the_derived_groups_256_experts_do_not(many_experts: Any, alone: list[dict[str, Any]]) -> None:
    difference, _ = many_experts.distance(alone[2])
    assert difference > 0.1


def test_npu_equals_cpu(tiny: Any, alone: list[dict[str, Any]], run_job: Callable[..., Results]) -> None:
    on_cpu = run_job(tiny, [{"task": "log_probs", "backward": True}], device="cpu")[0][0]
    assert alone[0]["loss"] == pytest.approx(on_cpu["loss"], rel=1e-6)
    assert alone[0]["grad_norm"] == pytest.approx(on_cpu["grad_norm"], rel=1e-5)
    assert alone[0]["without_gradient"] == on_cpu["without_gradient"] == []
    assert 1e-3 < on_cpu["grad_norm"] < 1e3


@pytest.mark.parametrize("task", [3, 4], ids=["ep2", "pp2"])
def test_a_step_in_two_processes_equals_one_process(task: int, pair: Results, alone: list[dict[str, Any]]) -> None:
    losses = [loss for rank in pair for loss in rank[task]["losses"]]
    assert sorted(losses) == pytest.approx(sorted(alone[3]["losses"]), rel=1e-5)
    for rank in pair:
        assert rank[task]["success"]
        assert rank[task]["grad_norm"] == pytest.approx(alone[3]["grad_norm"], rel=1e-4)


def test_a_bf16_step_trains(alone: list[dict[str, Any]]) -> None:
    step = alone[5]
    assert step["success"]
    assert step["grad_norm"] == pytest.approx(alone[3]["grad_norm"], rel=0.1)
    assert step["changed"] == step["parameters"]


def _whole(case: Any) -> dict[str, torch.Tensor]:
    """Every Megatron tensor made from the Hugging Face one, written down independently of the converter."""
    source = case.model.state_dict()
    whole = {
        "embedding.word_embeddings.weight": source["model.embed_tokens.weight"],
        "output_layer.weight": source["lm_head.weight"],
        "decoder.final_layernorm.weight": source["model.norm.weight"],
    }

    def gate_up(prefix: str) -> torch.Tensor:
        return torch.cat([source[prefix + "gate_proj.weight"], source[prefix + "up_proj.weight"]])

    for n in range(4):
        hf, mc = f"model.layers.{n}.", f"decoder.layers.{n}."
        for ours, theirs in {
            "input_layernorm.weight": "input_layernorm.weight",
            "self_attention.linear_q_down_proj.weight": "self_attn.q_a_proj.weight",
            "self_attention.linear_q_up_proj.layer_norm_weight": "self_attn.q_a_layernorm.weight",
            "self_attention.linear_q_up_proj.weight": "self_attn.q_b_proj.weight",
            "self_attention.linear_kv_down_proj.weight": "self_attn.kv_a_proj_with_mqa.weight",
            "self_attention.linear_kv_up_proj.layer_norm_weight": "self_attn.kv_a_layernorm.weight",
            "self_attention.linear_kv_up_proj.weight": "self_attn.kv_b_proj.weight",
            "self_attention.linear_proj.weight": "self_attn.o_proj.weight",
        }.items():
            whole[mc + ours] = source[hf + theirs]
        norm = "mlp.linear_fc1.layer_norm_weight" if n == 0 else "pre_mlp_layernorm.weight"
        whole[mc + norm] = source[hf + "post_attention_layernorm.weight"]
        plain = "mlp." if n == 0 else "mlp.shared_experts."
        whole[mc + plain + "linear_fc1.weight"] = gate_up(hf + plain)
        whole[mc + plain + "linear_fc2.weight"] = source[hf + plain + "down_proj.weight"]
        if n == 0:
            continue
        whole[mc + "mlp.router.weight"] = source[hf + "mlp.gate.weight"]
        whole[mc + "mlp.router.expert_bias"] = source[hf + "mlp.gate.e_score_correction_bias"]
        experts = [f"{hf}mlp.experts.{e}." for e in range(8)]
        whole[mc + "mlp.experts.experts.linear_fc1.weight"] = torch.stack([gate_up(name) for name in experts])
        down = torch.stack([source[name + "down_proj.weight"] for name in experts])
        whole[mc + "mlp.experts.experts.linear_fc2.weight"] = down
    return whole


def _assert_elements_equal(case: Any, ranks: list[dict[str, Any]], dtype: torch.dtype) -> None:
    whole = _whole(case)
    missing = {name: torch.ones(tensor.shape, dtype=torch.bool) for name, tensor in whole.items()}
    for rank in ranks:
        for name, offsets, piece in rank["pieces"]:
            # An expert's piece lacks the expert axis, of which it is one element.
            shape = (1,) * (len(offsets) - piece.dim()) + tuple(piece.shape)
            place = tuple(slice(at, at + size) for at, size in zip(offsets, shape, strict=True))
            expected = whole[name][place]
            if not name.endswith("expert_bias"):
                expected = expected.to(dtype)
            assert piece.dtype == expected.dtype, name
            assert torch.equal(piece.view(shape), expected), f"{name} at {offsets}"
            missing[name][place] = False
    assert [name for name, left in missing.items() if left.any()] == []


@pytest.mark.parametrize("task", [0, 1, 2], ids=["ep2", "pp2-uneven", "tp2"])
def test_the_checkpoint_loads_in_every_layout(task: int, tiny: Any, pair: Results) -> None:
    _assert_elements_equal(tiny, [rank[task] for rank in pair], torch.float32)


def test_a_bf16_model_loads_the_router_bias_in_float32(tiny: Any, alone: list[dict[str, Any]]) -> None:
    _assert_elements_equal(tiny, [alone[4]], torch.bfloat16)
