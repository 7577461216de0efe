# SPDX-License-Identifier: Apache-2.0
"""The routes of the shipped run files: what a die receives, by hand, how it is spread, and in how many rounds."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from recipe.plan import reshard
from recipe.plan.parameters import BF16, FP32, VOCABULARY_STEP, rollout_parameters
from recipe.plan.routes import World, routes_of, world
from recipe.plan.stages import stage_tensors
from recipe.plan.subject import Subject, subject
from recipe.runfile.config import load
from recipe.runfile.paths import REPO

GIB = 2**30
# Of models whose tensors the routes know.
CONFIGS = [path for path in sorted((REPO / "configs").glob("*.toml")) if subject(load(path)).model.has_routes]


def planned(name: str) -> tuple[Subject, World]:
    run = subject(load(REPO / "configs" / f"{name}.toml"))
    return run, world(routes_of(run))


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_a_die_receives_what_its_engine_keeps_less_what_its_stage_has(file: Path) -> None:
    """Against the parameters that the plan counts memory with."""
    run, figures = planned(file.stem)
    layout, model = run.layout, run.model
    kept = rollout_parameters(
        model,
        tensor=layout.rollout_tensor,
        expert=layout.rollout_expert,
        replicate_shared=run.config.rollout.multistream_moe,
    )
    # Padding of the vocabulary is not sent, wherever it lies, and the router travels in bfloat16, as the actor has it.
    padding = 2 * (-model.vocabulary % VOCABULARY_STEP) * model.hidden * BF16
    routers = model.moe_layers * model.experts * model.hidden * (FP32 - BF16)
    for kind, expert, less in ((figures.experts, True, 0), (figures.dense, False, routers)):
        whole = sum(tensor.nbytes for tensor in kept if tensor.expert is expert)
        assert len(kind) == layout.dies
        for die in kind:
            assert die.received == die.needed - die.own
            assert whole - less - (0 if expert else padding) <= die.needed <= whole - less
        held = [sum(t.nbytes for t in stage_tensors(run, stage) if t.expert is expert)
                for stage in range(layout.actor_pipeline)]  # fmt: skip
        for rank, die in enumerate(kind):
            biases = 0 if expert else model.moe_layers * model.experts * FP32
            assert 0 <= die.own <= held[rank // (layout.dies // layout.actor_pipeline)] + biases


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_dies_with_the_same_weights_send_alike(file: Path) -> None:
    assert planned(file.stem)[1].imbalance <= 1.05


def test_on_256_dies_each_gets_one_expert_of_each_layer_and_its_share_of_the_rest() -> None:
    run, figures = planned("a3_256die")
    expert = 58 * 3 * 2048 * 7168 * BF16
    assert max(die.received for die in figures.experts) == expert <= 5.2 * GIB
    # A layer's attention for one of two tensor parallel ranks, and the MLP beside the routed experts.
    split = 128 * 192 * 1536 + 128 * 256 * 512 + 7168 * 128 * 128
    attention = split // 2 + 1536 * 7168 + 576 * 7168 + 1536 + 512 + 2 * 7168
    moe = 58 * (256 * 7168 + 3 * 2048 * 7168 // 2)
    rest = BF16 * (61 * attention + moe + 3 * 3 * 18432 * 7168 // 2 + 129280 * 7168 + 7168) + 58 * 256 * FP32
    assert {die.needed for die in figures.dense} == {rest}
    all_received = sum(die.received for die in (*figures.experts, *figures.dense))
    lacking = 256 * (expert + rest) - sum(die.own for die in (*figures.experts, *figures.dense))
    assert all_received == lacking
    with_all = dataclasses.replace(run.config, rollout=dataclasses.replace(run.config.rollout, direct_sync=False))
    stock = sum(reshard.received_bytes(subject(with_all)).values())
    assert stock > 60 * max(a.received + b.received for a, b in zip(figures.experts, figures.dense, strict=True))


@pytest.mark.parametrize(
    ("name", "expert_rounds", "dense_rounds"),
    [("a3_256die", 24, 35), ("a3_256die_true_weight", 48, 40), ("a3_384die_base_acc", 77, 35)],
)
def test_rounds_of_half_a_gibibyte(name: str, expert_rounds: int, dense_rounds: int) -> None:
    figures = planned(name)[1]
    assert (figures.expert_rounds, figures.dense_rounds) == (expert_rounds, dense_rounds)


@pytest.mark.parametrize("rank", [0, 100, 255])
def test_no_round_of_the_big_run_has_more_on_the_way_than_the_buffer(rank: int) -> None:
    routes = routes_of(subject(load(REPO / "configs/a3_256die.toml")))
    plan = routes.of_rank(rank)
    assert max(round_.buffer_bytes for round_ in plan.all_rounds) <= routes.buffer_bytes == 512 * 2**20
