# SPDX-License-Identifier: Apache-2.0
"""What models ask for, against what their authors say of them and against what the plan counts tensor by tensor."""

from __future__ import annotations

import pytest

from recipe.plan.counts import DEEPSEEK_V3, MOONLIGHT_16B, QWEN3_30B, QWEN3_235B, Counts
from recipe.plan.parameters import rollout_parameters, total_parameters
from recipe.runfile.architecture import KNOWN

MODEL = KNOWN["deepseek_v3_671b"]


def test_a_token_passes_37_billion_parameters() -> None:
    # DeepSeek-V3's report: 37 B activated for each token, the embedding of 0.93 B among them.
    assert (DEEPSEEK_V3.active_parameters + 129280 * 7168) / 1e9 == pytest.approx(37, abs=0.6)
    products, attention = 2 * DEEPSEEK_V3.active_parameters, 61 * 128 * (192 + 128) * 4096
    assert DEEPSEEK_V3.forward_flops(1, 4096) == pytest.approx(products + attention)


@pytest.mark.parametrize(
    ("counts", "total", "active"),
    [(QWEN3_235B, 235, 22), (QWEN3_30B, 30.5, 3.3), (MOONLIGHT_16B, 16, 2.6)],
    ids=["Qwen3-235B-A22B", "Qwen3-30B-A3B", "Moonlight-16B-A3B"],
)
def test_other_families_have_the_parameters_that_their_names_say(counts: Counts, total: float, active: float) -> None:
    assert (counts.other_parameters + counts.expert_parameters) / 1e9 == pytest.approx(total, rel=0.01)
    assert counts.active_parameters / 1e9 == pytest.approx(active, rel=0.1)


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
    assert QWEN3_235B.cache_bytes == 94 * 2 * 4 * 128 * 2
