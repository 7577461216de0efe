# SPDX-License-Identifier: Apache-2.0
"""DeepSeek-V3's family: what follows from its config.json, and what cannot be trained as it is sampled."""

from __future__ import annotations

from typing import Any

import pytest

from recipe.models.architecture import LatentArchitecture
from recipe.models.families import describe
from recipe.models.family import ModelError
from recipe.models.published import CONFIGS, KNOWN

V3 = CONFIGS["deepseek_v3_671b"]
YARN = V3["rope_scaling"]


def test_groups_follow_the_config() -> None:
    assert describe(V3).transformer_overrides == {"moe_router_num_groups": 8, "moe_router_group_topk": 4}


@pytest.mark.parametrize("changes", [{"n_group": 1, "topk_group": 1}, {"n_group": None, "topk_group": None}])
def test_no_groups_no_settings(changes: dict[str, Any]) -> None:
    assert describe({**V3, **changes}).transformer_overrides == {}


def test_moonlight_s_queries_come_from_the_hidden_state() -> None:
    moonlight = KNOWN["moonlight_16b_a3b"]
    assert isinstance(moonlight, LatentArchitecture) and moonlight.q_lora_rank is None
    assert moonlight.transformer_overrides == {} and moonlight.rope_factor == 1.0
    assert not moonlight.as_published and KNOWN["deepseek_v3_671b"].as_published


def test_kimi_k2_is_a_deepseek_v3_of_other_sizes() -> None:
    assert describe(CONFIGS["kimi_k2"] | {"model_type": "deepseek_v3"}) == KNOWN["kimi_k2"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scoring_func": "softmax"}, "scoring_func is 'softmax'"),
        ({"topk_method": "greedy"}, "topk_method is 'greedy'"),
        ({"moe_layer_freq": 2}, "moe_layer_freq is 2"),
        ({"norm_topk_prob": False}, "norm_topk_prob is false"),
        ({"n_group": 7}, "n_group is 7"),
        ({"topk_group": 9}, "topk_group 9"),
        ({"topk_group": 1, "num_experts_per_tok": 33}, "num_experts_per_tok is 33, of 32 experts"),
        ({"rope_scaling": {**YARN, "mscale_all_dim": 0.7}}, "mscale_all_dim 0.7"),
        ({"rope_scaling": {"type": "yarn", "factor": 40}}, "mscale None"),
        ({"rope_scaling": {"rope_type": "linear", "factor": 2}}, "linear"),
        ({"rope_scaling": {**YARN, "factor": 0}}, "a number above 0"),
        ({"tie_word_embeddings": True}, "tie_word_embeddings is true"),
        ({"attention_bias": True}, "attention_bias is true"),
        ({"first_k_dense_replace": 62}, "first_k_dense_replace is 62 of num_hidden_layers 61"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ({"architectures": ["DeepseekV3ForSequenceClassification"]}, "architectures is"),
        ({"rope_parameters": {"rope_theta": 10000}}, "transformers 5"),
    ],
)
def test_refuses_what_would_be_computed_otherwise(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        describe({**V3, **changes})
