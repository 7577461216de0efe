# SPDX-License-Identifier: Apache-2.0
"""The rollout's router of Qwen3-MoE works in float32, as the trainer's does, while the rest is bfloat16."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from vllm_ascend.ops import fused_moe

from tests.vllm_ascend_patches.ties import require_told_apart

HIDDEN, EXPERTS = 64, 4


@pytest.fixture
def moe(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The MoE layer as in one process without parallel groups, in bfloat16."""
    group = SimpleNamespace(world_size=1, device_group=None, rank_in_group=0)
    torchair = SimpleNamespace(enabled=False, enable_multistream_moe=False)
    monkeypatch.setattr(fused_moe, "get_tensor_model_parallel_world_size", lambda: 1)
    for name in ("get_dp_group", "get_tp_group", "get_ep_group"):
        monkeypatch.setattr(fused_moe, name, lambda: group)
    monkeypatch.setattr(fused_moe, "get_ascend_config", lambda: SimpleNamespace(torchair_graph_config=torchair))
    monkeypatch.setattr(fused_moe, "AscendFusedMoE", lambda **kwargs: torch.nn.Identity())
    config = SimpleNamespace(
        hidden_size=HIDDEN, num_experts=EXPERTS, num_experts_per_tok=1, moe_intermediate_size=8, norm_topk_prob=True
    )
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    yield fused_moe.AscendSparseMoeBlock(config, prefix="mlp")
    torch.set_default_dtype(before)


@pytest.mark.proves("vllm_ascend_patches.ops.fused_moe:float32_router")
def test_experts_that_tie_in_bfloat16_are_told_apart(moe: Any) -> None:
    require_told_apart(moe.gate)
