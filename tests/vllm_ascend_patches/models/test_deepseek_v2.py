# SPDX-License-Identifier: Apache-2.0
"""The rollout's router works in float32, as the trainer's does, while the rest of the model is bfloat16."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from vllm_ascend.models import deepseek_v2

from tests.vllm_ascend_patches.ties import require_told_apart

ID = "vllm_ascend_patches.models.deepseek_v2:float32_router"
HIDDEN, EXPERTS = 64, 4


class Experts(torch.nn.Module):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__()
        self.bias = kwargs["e_score_correction_bias"]


@pytest.fixture
def build(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Builds the MoE layer as in one process without parallel groups, in bfloat16."""
    group = SimpleNamespace(world_size=1, device_group=None, rank_in_group=0)
    torchair = SimpleNamespace(enabled=False, enable_multistream_moe=False, enable_super_kernel=False)
    options = SimpleNamespace(torchair_graph_config=torchair, enable_prefill_optimizations=False)
    monkeypatch.setattr(deepseek_v2, "get_tensor_model_parallel_world_size", lambda: 1)
    monkeypatch.setattr(deepseek_v2, "get_dp_group", lambda: group)
    monkeypatch.setattr(deepseek_v2, "get_tp_group", lambda: group)
    monkeypatch.setattr(deepseek_v2, "get_ascend_config", lambda: options)
    monkeypatch.setattr(deepseek_v2, "AscendFusedMoE", Experts)

    def layer(topk_method: str) -> Any:
        config = SimpleNamespace(
            hidden_size=HIDDEN, n_routed_experts=EXPERTS, num_experts_per_tok=1, moe_intermediate_size=8, n_group=1,
            topk_group=1, routed_scaling_factor=1.0, n_shared_experts=None, hidden_act="silu", norm_topk_prob=True,
            topk_method=topk_method, scoring_func="sigmoid",
        )  # fmt: skip
        return deepseek_v2.CustomDeepseekV2MoE(config, prefix="mlp")

    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    yield layer
    torch.set_default_dtype(before)


@pytest.mark.proves(ID)
@pytest.mark.parametrize("topk_method", ["noaux_tc", "greedy"])
def test_experts_that_tie_in_bfloat16_are_told_apart(build: Any, topk_method: str) -> None:
    require_told_apart(build(topk_method).gate)


@pytest.mark.proves(ID)
def test_the_experts_see_the_float32_bias_that_is_loaded(build: Any) -> None:
    moe = build("noaux_tc")
    bias = torch.tensor([0.5, 0.5 + 2.0**-12, 0.25, 0.0], dtype=torch.float32)
    with torch.no_grad():
        moe.gate.e_score_correction_bias.copy_(bias)
    assert moe.experts.bias is moe.gate.e_score_correction_bias
    assert torch.equal(moe.experts.bias, bias)
