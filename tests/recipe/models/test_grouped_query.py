# SPDX-License-Identifier: Apache-2.0
"""Llama, Qwen2, Qwen3 and Qwen3-MoE: their sizes, and what verl would build otherwise than config.json says."""

from __future__ import annotations

from typing import Any

import pytest

from recipe.models.architecture import GroupedQueryArchitecture
from recipe.models.families import describe
from recipe.models.family import ModelError
from recipe.models.published import CONFIGS, KNOWN

LLAMA3 = CONFIGS["llama3_1_8b"]["rope_scaling"]


@pytest.mark.parametrize(
    ("name", "bias", "norm", "tied"),
    [
        ("qwen3_30b_a3b", False, True, False),
        ("qwen3_8b", False, True, False),
        ("qwen3_0_6b", False, True, True),
        ("qwen2_5_7b", True, False, False),
        ("llama3_1_8b", False, False, False),
    ],
)
def test_each_family_has_its_attention(name: str, bias: bool, norm: bool, tied: bool) -> None:
    model = KNOWN[name]
    assert isinstance(model, GroupedQueryArchitecture) and not model.has_graphs and not model.has_routes
    assert (model.qkv_bias, model.qk_norm, model.tied) == (bias, norm, tied)
    assert model.transformer_overrides == ({} if model.experts else {"bias_activation_fusion": True})
    assert not model.correction_bias


def test_dies_beyond_the_key_heads_have_copies() -> None:
    model = KNOWN["qwen3_30b_a3b"]
    assert [model.cache_width(tensor) for tensor in (1, 2, 4, 8)] == [1024, 512, 256, 256]
    assert KNOWN["deepseek_v3_671b"].cache_width(1) == KNOWN["deepseek_v3_671b"].cache_width(8) == 576


def test_a_mixture_has_experts_in_every_layer_and_a_dense_model_none() -> None:
    mixture, dense = KNOWN["qwen3_30b_a3b"], KNOWN["qwen3_8b"]
    assert (mixture.moe_layers, mixture.experts, mixture.shared_experts) == (48, 128, 0)
    assert (dense.moe_layers, dense.experts, dense.experts_per_token) == (0, 0, 0)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("llama3_1_8b", {"num_key_value_heads": 5}, "num_key_value_heads is 5, which does not divide"),
        ("llama3_1_8b", {"hidden_size": 4100}, "does not divide hidden_size 4100; there is no head_dim"),
        ("llama3_1_8b", {"attention_bias": True}, "attention_bias is true"),
        ("llama3_1_8b", {"mlp_bias": True}, "mlp_bias is true"),
        ("llama3_1_8b", {"rope_scaling": {**LLAMA3, "low_freq_factor": 2}}, "'low_freq_factor': 2"),
        ("llama3_1_8b", {"rope_scaling": {**LLAMA3, "factor": "8"}}, "factor '8'"),
        ("llama3_1_8b", {"rope_scaling": {"rope_type": "dynamic", "factor": 2}}, "'linear' and 'llama3'"),
        ("qwen2_5_7b", {"use_sliding_window": True}, "use_sliding_window is True"),
        ("qwen3_8b", {"layer_types": ["sliding_attention"] * 36}, "layer_types is"),
        ("qwen3_8b", {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "'linear' and 'llama3'"),
        ("qwen3_8b", {"architectures": ["Qwen3ForTokenClassification"]}, "architectures is"),
        ("qwen3_30b_a3b", {"mlp_only_layers": [0]}, r"mlp_only_layers is \[0\]"),
        ("qwen3_30b_a3b", {"decoder_sparse_step": 2}, "decoder_sparse_step is 2"),
        ("qwen3_30b_a3b", {"norm_topk_prob": False}, "norm_topk_prob is false"),
        ("qwen3_30b_a3b", {"num_experts_per_tok": 129}, "num_experts_per_tok is 129 of num_experts 128"),
    ],
)
def test_refuses_what_would_be_built_otherwise(name: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        describe({**CONFIGS[name], **changes})


def test_full_attention_by_name_is_full_attention() -> None:
    named = CONFIGS["qwen3_8b"] | {"layer_types": ["full_attention"] * 36}
    assert describe(named) == KNOWN["qwen3_8b"]
