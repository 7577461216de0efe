# SPDX-License-Identifier: Apache-2.0
"""MLA's absorbed projections follow the weights and go with them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from vllm.model_executor.layers.linear import UnquantizedLinearMethod
from vllm_ascend.attention.mla_v1 import AscendMLAImpl

from verl_patches.workers.rollout.vllm_rollout.derived_weights import free_derived_weights, rebuild_derived_weights

HEADS, LORA, NOPE, VALUE = 4, 8, 6, 5


class Attention(nn.Module):
    """vLLM's attention module as far as its derived weights go, with vLLM-Ascend's real implementation behind."""

    def __init__(self) -> None:
        super().__init__()
        self.kv_b_proj = nn.Linear(LORA, HEADS * (NOPE + VALUE), bias=False)
        self.impl = AscendMLAImpl.__new__(AscendMLAImpl)
        layer = SimpleNamespace(weight=self.kv_b_proj.weight, quant_method=UnquantizedLinearMethod())
        for name, value in {
            "kv_b_proj": layer,
            "kv_lora_rank": LORA,
            "num_heads": HEADS,
            "qk_nope_head_dim": NOPE,
            "v_head_dim": VALUE,
        }.items():
            setattr(self.impl, name, value)

    def process_weights_after_loading(self, dtype: torch.dtype) -> None:
        self.impl.process_weights_after_loading(dtype)


class Experts(nn.Module):
    """Has post-processing of its own, which must not run: it would replace the expert parameters."""

    def process_weights_after_loading(self, layer: object) -> None:
        raise AssertionError("only attention layers are rebuilt")


@pytest.fixture
def model() -> nn.Module:
    model = nn.ModuleDict({"attention": Attention(), "experts": Experts(), "other": nn.Linear(2, 2)})
    rebuild_derived_weights(model, torch.float32)
    return model


def test_after_a_sync_they_are_those_of_the_new_weights(model: nn.Module) -> None:
    attention = model["attention"]
    old = attention.impl.W_UV
    with torch.no_grad():
        attention.kv_b_proj.weight.copy_(torch.randn(HEADS * (NOPE + VALUE), LORA))
    rebuild_derived_weights(model, torch.float32)
    per_head = attention.kv_b_proj.weight.view(HEADS, NOPE + VALUE, LORA)
    torch.testing.assert_close(attention.impl.W_UK_T, per_head[:, :NOPE])
    torch.testing.assert_close(attention.impl.W_UV, per_head[:, NOPE:].transpose(1, 2))
    assert not torch.equal(attention.impl.W_UV, old)


def test_released_they_are_gone_and_not_silently_old(model: nn.Module) -> None:
    free_derived_weights(model)
    implementation = model["attention"].impl
    assert implementation.W_UV is None and implementation.W_UK_T is None
    with pytest.raises(TypeError):
        torch.bmm(torch.ones(HEADS, 1, LORA), implementation.W_UV)
    free_derived_weights(model)
    rebuild_derived_weights(model, torch.float32)
    assert implementation.W_UV is not None
