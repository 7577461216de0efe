# SPDX-License-Identifier: Apache-2.0
"""Settings derived from config.json, and the configs that cannot be trained as they are sampled."""

from __future__ import annotations

from typing import Any

import pytest

from recipe.weights.model_config import transformer_overrides

YARN = {"type": "yarn", "factor": 40, "mscale": 1.0, "mscale_all_dim": 1.0}
V3: dict[str, Any] = {
    "model_type": "deepseek_v3", "n_routed_experts": 256, "n_group": 8, "topk_group": 4, "num_experts_per_tok": 8,
    "scoring_func": "sigmoid", "norm_topk_prob": True, "rope_scaling": YARN,
}  # fmt: skip


def test_groups_follow_the_config() -> None:
    assert transformer_overrides(V3) == {"moe_router_num_groups": 8, "moe_router_group_topk": 4}


@pytest.mark.parametrize("changes", [{"n_group": 1, "topk_group": 1}, {"n_group": None, "topk_group": None}])
def test_no_groups_no_settings(changes: dict[str, Any]) -> None:
    assert transformer_overrides({**V3, **changes}) == {}


def test_other_models_need_nothing() -> None:
    assert transformer_overrides({"model_type": "qwen2"}) == {}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scoring_func": "softmax"}, "scoring_func='softmax'"),
        ({"norm_topk_prob": False}, "norm_topk_prob"),
        ({"n_group": 7}, "n_group=7"),
        ({"topk_group": 9}, "topk_group=9"),
        ({"rope_scaling": {**YARN, "mscale_all_dim": 0.7}}, "mscale_all_dim=0.7"),
        ({"rope_scaling": {"type": "yarn", "factor": 40}}, "mscale=None"),
        ({"rope_scaling": {"rope_type": "linear", "factor": 2}}, "linear"),
    ],
)
def test_refuses_what_would_be_computed_otherwise(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        transformer_overrides({**V3, **changes})
