# SPDX-License-Identifier: Apache-2.0
"""The counted parameters against the published size of the model, and over all layouts."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recipe.models.families import describe
from recipe.models.published import KNOWN
from recipe.plan.parameters import actor_parameters, rollout_parameters, total_parameters
from recipe.plan.shards import buffers
from recipe.tiny.config import tiny_fields

BIG = KNOWN["deepseek_v3_671b"]
TINY = describe(tiny_fields())


def test_the_big_model_has_its_published_number_of_parameters() -> None:
    assert round(total_parameters(BIG) / 1e9) == 671  # DeepSeek-V3's report, without the prediction layer


@settings(deadline=None)
@given(
    cuts=st.lists(st.integers(1, 60), max_size=7, unique=True),
    expert=st.sampled_from([1, 2, 8, 32, 256]),
    tensor=st.sampled_from([1, 2, 4]),
)
def test_the_stages_of_any_layout_hold_the_whole_model_together(cuts: list[int], expert: int, tensor: int) -> None:
    edges = [0, *sorted(cuts), BIG.layers]
    experts = rest = 0
    for start, end in itertools.pairwise(edges):
        held = actor_parameters(
            BIG, start, end - start, tensor=tensor, expert=expert, first=start == 0, last=end == BIG.layers
        )
        experts += sum(t.elements for t in held if t.expert)
        rest += sum(t.elements for t in held if not t.expert)
    norms = BIG.hidden + BIG.layers * (2 * BIG.hidden + BIG.q_lora_rank + BIG.kv_lora_rank)
    routers = BIG.moe_layers * BIG.experts * BIG.hidden
    # Only norms and routers are whole on every tensor parallel rank.
    assert experts * expert + (rest - norms - routers) * tensor + norms + routers == total_parameters(BIG)


@settings(deadline=None)
@given(data=st.sampled_from([1, 2, 3, 32, 96]), experts=st.sampled_from([1, 2, 4]))
def test_the_optimizers_of_a_group_cover_its_parameters_once_with_little_padding(data: int, experts: int) -> None:
    held = actor_parameters(TINY, 0, 4, tensor=1, expert=2, first=True, last=True)
    laid = buffers(held, data, experts)
    count = sum(t.elements for t in held)
    assert laid.dense % data == 0 and laid.expert % experts == 0
    assert count <= laid.elements <= count + len(held) * 64 + 2 * 128 * data
    assert laid.optimizer_bytes <= laid.elements * 12


@pytest.mark.parametrize("tensor", [1, 2])
@pytest.mark.parametrize("expert", [2, 256])
def test_engines_hold_the_experts_once_and_the_rest_by_tensor_rank(tensor: int, expert: int) -> None:
    held = rollout_parameters(BIG, tensor=tensor, expert=expert, replicate_shared=False)
    experts = sum(t.elements for t in held if t.expert)
    assert experts * expert == BIG.moe_layers * BIG.experts * 3 * BIG.moe_intermediate * BIG.hidden
    replicated = rollout_parameters(BIG, tensor=tensor, expert=expert, replicate_shared=True)
    assert sum(t.elements for t in replicated) - sum(t.elements for t in held) == (
        BIG.moe_layers * 3 * BIG.moe_intermediate * BIG.hidden * (tensor - 1) // tensor
    )
