# SPDX-License-Identifier: Apache-2.0
"""The coordinates of dies against those of the pinned upstreams."""

from __future__ import annotations

import pytest
from megatron.core.parallel_state import RankGenerator
from vllm.model_executor.layers.fused_moe.layer import determine_expert_map

from verl_patches.utils.routes.layouts import ActorLayout, RolloutLayout

ORDER = "tp-cp-ep-dp-pp"  # the default of `initialize_model_parallel`


@pytest.mark.parametrize(
    "actor",
    [
        ActorLayout(256, 1, 32, (6, 8, 8, 8, 8, 8, 8, 7)),
        ActorLayout(384, 1, 64, (9, 11, 11, 11, 11, 8)),
        ActorLayout(16, 2, 4, (1, 3)),
        ActorLayout(24, 4, 2, (2,)),
    ],
)
def test_the_actors_groups_are_megatrons(actor: ActorLayout) -> None:
    dense = RankGenerator(tp=actor.tensor, ep=1, dp=actor.data, pp=actor.stages, cp=1, order=ORDER)
    groups = [actor.model_group(data_rank) for data_rank in range(actor.data)]
    assert sorted(map(sorted, dense.get_ranks("tp-pp"))) == sorted(map(sorted, groups))
    for group in dense.get_ranks("tp"):
        assert [actor.tensor_rank(rank) for rank in group] == list(range(actor.tensor))
    for group in dense.get_ranks("pp"):
        assert [actor.stage(rank) for rank in group] == list(range(actor.stages))
    for group in dense.get_ranks("dp"):
        assert [actor.data_rank(rank) for rank in group] == list(range(actor.data))

    experts = RankGenerator(tp=1, ep=actor.expert, dp=actor.expert_data, pp=actor.stages, cp=1, order=ORDER)
    for group in experts.get_ranks("ep"):
        assert [actor.expert_rank(rank) for rank in group] == list(range(actor.expert))
    holders = [actor.expert_holders(stage, rank) for stage in range(actor.stages) for rank in range(actor.expert)]
    assert sorted(experts.get_ranks("dp")) == sorted(map(list, holders))


@pytest.mark.parametrize(("instance", "experts"), [(8, 8), (8, 16), (4, 10), (1, 6), (3, 8)])
def test_an_instance_spreads_its_experts_as_vllm_does(instance: int, experts: int) -> None:
    rollout = RolloutLayout(2 * instance, 1, 2)
    for rank in range(rollout.dies):
        count, numbers = determine_expert_map(instance, rollout.expert_rank(rank), experts)
        local = list(range(experts)) if numbers is None else [n for n in range(experts) if numbers[n] >= 0]
        assert local == list(rollout.experts(rollout.expert_rank(rank), experts)) and len(local) == count
        assert all(rank in rollout.expert_dies(expert, experts) for expert in local)
