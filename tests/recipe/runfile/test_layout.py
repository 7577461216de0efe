# SPDX-License-Identifier: Apache-2.0
"""The arithmetic of a run, against what must hold for every layout."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recipe.runfile.config import load
from recipe.runfile.derive import derive_run
from recipe.runfile.errors import ConfigError
from recipe.runfile.layout import lay_out
from recipe.runfile.schema import RunConfig

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
SIM = load(CONFIGS / "sim.toml")
SIZES = st.sampled_from([1, 2, 3, 4, 6, 8, 16])


def with_layout(
    dies: int,
    rollout_tensor: int,
    actor_tensor: int,
    expert: int,
    stages: list[int],
    prompts: int = 16,
    samples: int = 16,
) -> RunConfig:
    return dataclasses.replace(
        SIM,
        cluster=dataclasses.replace(SIM.cluster, dies_per_node=dies),
        rollout=dataclasses.replace(SIM.rollout, tensor_parallel=rollout_tensor, samples_per_prompt=samples),
        actor=dataclasses.replace(SIM.actor, tensor_parallel=actor_tensor, expert_parallel=expert, stage_layers=stages),
        train=dataclasses.replace(SIM.train, prompts_per_step=prompts),
    )


def test_the_two_die_run() -> None:
    layout = lay_out(SIM)
    assert (layout.rollout_data, layout.rollout_tensor, layout.rollout_expert) == (2, 1, 2)
    assert (layout.actor_data, layout.actor_expert, layout.expert_data) == (2, 2, 1)
    assert layout.rollout_sequences_per_engine == 128


def test_the_four_die_run() -> None:
    layout = lay_out(load(CONFIGS / "sim_4die.toml"))
    assert (layout.rollout_data, layout.rollout_tensor, layout.rollout_expert) == (2, 2, 4)
    assert (layout.actor_pipeline, layout.actor_data, layout.actor_expert) == (2, 2, 2)
    assert (layout.first_stage_layers, layout.last_stage_layers, layout.even_stages) == (1, 3, False)


def test_the_nz_cache_needs_a_token_budget_for_the_longest_sequence() -> None:
    longest = 40 + SIM.data.max_response_tokens

    def run(budget: int) -> RunConfig:
        rollout = dataclasses.replace(SIM.rollout, graph_mode=True, kv_nz=True, max_batched_tokens=budget)
        return dataclasses.replace(SIM, rollout=rollout)

    lay_out(run(longest), prompt_tokens=40)
    with pytest.raises(ConfigError, match=r"below the longest sequence \(64\)"):
        lay_out(run(longest - 1), prompt_tokens=40)


def test_the_published_256_die_layout() -> None:
    config = with_layout(256, 2, 1, 32, [6, 8, 8, 8, 8, 8, 8, 7], prompts=512, samples=16)
    layout = lay_out(config)
    assert (layout.rollout_data, layout.rollout_sequences_per_engine) == (128, 64)
    assert (layout.actor_data, layout.layers) == (32, 61)


@given(SIZES, SIZES, SIZES, SIZES, st.lists(st.integers(1, 4), min_size=1, max_size=4), SIZES, SIZES)
def test_a_layout_that_is_accepted_adds_up(
    dies: int, rollout_tensor: int, actor_tensor: int, expert: int, stages: list[int], prompts: int, samples: int
) -> None:
    config = with_layout(dies, rollout_tensor, actor_tensor, expert, stages, prompts, samples)
    try:
        layout = lay_out(config)
    except ConfigError as error:
        assert "\n" not in str(error)
        return
    assert layout.rollout_data * layout.rollout_tensor == dies
    assert layout.actor_data * layout.actor_tensor * layout.actor_pipeline == dies
    assert layout.expert_data * layout.actor_expert * layout.actor_pipeline == dies
    assert layout.rollout_sequences_per_engine * layout.rollout_engines == prompts * samples
    assert layout.actor_sequences_per_rank * layout.actor_data == prompts * samples
    assert layout.actor_sequences_per_rank % layout.micro_batch == 0
    longest = config.data.max_prompt_tokens + config.data.max_response_tokens
    assert layout.micro_batch == 1 or layout.micro_batch * longest <= config.actor.micro_batch_tokens
    # First and last stage say everything about the stages, which is all that Megatron-core is told, or they are listed.
    middle = layout.stage_layers[1:-1]
    listed = derive_run(config).environment["RECIPE_STAGE_LAYERS"]
    assert not middle or set(middle) == {middle[0]} or listed == ",".join(map(str, stages))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((2, 4, 1, 1, [4]), "[rollout] tensor_parallel is 4, which does not divide the dies (2)"),
        ((4, 1, 1, 1, [1, 1, 2]), "number of stages is 3, which does not divide the dies (4)"),
        (
            (4, 1, 1, 4, [2, 2]),
            "[actor] expert_parallel is 4, which does not divide the dies of one pipeline stage (2)",
        ),
        ((4, 1, 1, 1, [4, 0]), "stage_layers[1] is 0"),
        ((2, 1, 1, 1, [4], 3, 1), "does not divide the sequences of a step (3)"),
    ],
)
def test_a_layout_that_cannot_be_is_refused(arguments: tuple, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        lay_out(with_layout(*arguments))
    assert expected in str(caught.value)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_any_list_of_stages_is_said_by_megatrons_keys_or_is_listed(stages: list[int]) -> None:
    config = with_layout(len(stages), 1, 1, 1, stages, len(stages), 1)
    derived = derive_run(config)
    keys = (f"num_layers_in_{end}_pipeline_stage" for end in ("first", "last"))
    first, last = (next((int(one.split("=")[1]) for one in derived.overrides if key in one), None) for key in keys)
    listed = derived.environment["RECIPE_STAGE_LAYERS"]
    # As Megatron-core 0.12.1 divides the layers that are left.
    others = len(stages) - (first is not None) - (last is not None)
    middle = (sum(stages) - (first or 0) - (last or 0)) // max(1, others)
    told = [middle] * len(stages)
    told[0], told[-1] = first or told[0], last or told[-1]
    assert (listed == "") == (told == stages)
    assert listed in ("", ",".join(map(str, stages)))


def test_shorter_prompts_make_larger_micro_batches() -> None:
    assert lay_out(SIM, prompt_tokens=16).micro_batch > lay_out(SIM, prompt_tokens=512).micro_batch


def test_the_micro_batch_is_the_largest_that_divides_and_fits_however_large_the_batch() -> None:
    """Trying every number up to 16 * 10**12 would take hours; a mistyped batch is to be told at once."""
    layout = lay_out(dataclasses.replace(SIM, train=dataclasses.replace(SIM.train, prompts_per_step=10**12)))
    fitting = SIM.actor.micro_batch_tokens // (SIM.data.max_prompt_tokens + SIM.data.max_response_tokens)
    sequences = layout.update_sequences_per_rank
    assert layout.micro_batch == max(size for size in range(1, fitting + 1) if sequences % size == 0) > 1


def test_a_warm_up_that_outlasts_the_run_is_refused() -> None:
    """`assert self.lr_warmup_steps < self.lr_decay_steps` in Megatron-core's OptimizerParamScheduler."""
    longest = SIM.run.steps - 1
    assert lay_out(dataclasses.replace(SIM, train=dataclasses.replace(SIM.train, warmup_steps=longest)))
    with pytest.raises(ConfigError, match=r"^\[train\] warmup_steps is 50, and Megatron-core wants it below .* \(50\)"):
        lay_out(dataclasses.replace(SIM, train=dataclasses.replace(SIM.train, warmup_steps=longest + 1)))
