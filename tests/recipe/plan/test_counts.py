# SPDX-License-Identifier: Apache-2.0
"""What models ask for, against what their authors say of them and against what the plan counts tensor by tensor."""

from __future__ import annotations

import pytest

from recipe.models.published import KNOWN
from recipe.plan.counts import counts_of
from recipe.plan.parameters import rollout_parameters, total_parameters

MODEL = KNOWN["deepseek_v3_671b"]
DEEPSEEK_V3 = counts_of(MODEL)


def test_a_token_passes_37_billion_parameters() -> None:
    # DeepSeek-V3's report: 37 B activated for each token, the embedding of 0.93 B among them.
    assert (DEEPSEEK_V3.active_parameters + 129280 * 7168) / 1e9 == pytest.approx(37, abs=0.6)
    products, attention = 2 * DEEPSEEK_V3.active_parameters, 61 * 128 * (192 + 128) * 4096
    assert DEEPSEEK_V3.forward_flops(1, 4096) == pytest.approx(products + attention)


@pytest.mark.parametrize(
    ("name", "total", "active"),
    [("qwen3_235b_a22b", 235, 22), ("qwen3_30b_a3b", 30.5, 3.3), ("moonlight_16b_a3b", 16, 2.6), ("kimi_k2", 1026, 32)],
)
def test_mixtures_have_the_parameters_that_their_names_say(name: str, total: float, active: float) -> None:
    counts = counts_of(KNOWN[name])
    assert (counts.other_parameters + counts.expert_parameters) / 1e9 == pytest.approx(total, rel=0.01)
    assert counts.active_parameters / 1e9 == pytest.approx(active, rel=0.1)


@pytest.mark.parametrize("name", ["qwen3_8b", "qwen2_5_0_5b", "llama3_1_8b"])
def test_a_token_passes_all_of_a_dense_model_but_the_embedding(name: str) -> None:
    model, counts = KNOWN[name], counts_of(KNOWN[name])
    looked_up = 0 if model.tied else model.vocabulary * model.hidden
    assert counts.active_parameters == total_parameters(model) - looked_up == counts.other_parameters - looked_up
    assert counts.to_experts_bytes(1, tensor=2, expert=4) == 0


def test_an_engine_s_weights_are_those_counted_tensor_by_tensor() -> None:
    assert DEEPSEEK_V3.other_parameters + DEEPSEEK_V3.expert_parameters == total_parameters(MODEL)
    for tensor, expert in ((2, 256), (2, 128), (32, 32)):
        tensors = rollout_parameters(MODEL, tensor=tensor, expert=expert, replicate_shared=False)
        # The down projections and the router, which tensor parallelism does not split there, are split here.
        assert DEEPSEEK_V3.weight_bytes(tensor, expert) == pytest.approx(sum(t.nbytes for t in tensors), rel=0.08)


def test_a_token_goes_to_its_experts_and_back_and_through_two_all_reduces_a_layer() -> None:
    state = 7168 * 2
    assert DEEPSEEK_V3.to_experts_bytes(1, tensor=2, expert=4) == 58 * 8 * 2 * state / 2 * 3 / 4
    assert DEEPSEEK_V3.to_experts_bytes(1, tensor=2, expert=1) == 0
    assert DEEPSEEK_V3.reduced_bytes(1, tensor=4) == 61 * 2 * 2 * state * 3 / 4  # a ring sends each part twice


def test_the_cache_is_that_of_the_memory_plan() -> None:
    assert DEEPSEEK_V3.cache_bytes == 70_272
    assert counts_of(KNOWN["qwen3_235b_a22b"]).cache_bytes == 94 * 2 * 4 * 128 * 2
