# SPDX-License-Identifier: Apache-2.0
"""Which parts are on a die in which phase, and how they grow."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recipe.models.published import KNOWN
from recipe.plan import activations
from recipe.plan.fit import Wanted, fit
from recipe.plan.memory import PHASES, host, memory, memory_by_phase, pinned_bytes_per_host
from recipe.plan.subject import TINY_PROMPT_TOKENS, subject
from recipe.runfile.config import load
from recipe.runfile.errors import ConfigError
from recipe.runfile.schema import Recompute, RunConfig

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
PUBLISHED = load(CONFIGS / "a3_256die.toml")
GIB = 2**30
MODEL = KNOWN["deepseek_v3_671b"]


def with_(config: RunConfig, section: str, **values: Any) -> RunConfig:
    return dataclasses.replace(config, **{section: dataclasses.replace(getattr(config, section), **values)})


# With a pass for the old log-probabilities.
BIG = with_(PUBLISHED, "train", loss_mode="vanilla")


def fullest(config: RunConfig, phase: str) -> int:
    return memory_by_phase(config)[phase]


def test_the_big_run_by_hand() -> None:
    """Stage 1 of the 256-die run: 8 layers, 8 of 256 experts, one die of 32 for the rest."""
    die = memory(subject(BIG)).dies[1]
    expert = 3 * 7168 * 2048
    attention = 7168 * (1536 + 576) + 1536 * 128 * 192 + 512 * 128 * 256 + 128 * 128 * 7168
    norms = 2 * 7168 + 1536 + 512
    count = 8 * (8 * expert + attention + expert + 256 * 7168 + norms)
    assert die.phases["update"]["actor weights"] == pytest.approx(2 * count, rel=1e-4)
    assert die.phases["update"]["gradients"] == 2 * die.phases["update"]["actor weights"]
    # A node of 16 such dies: bf16 of actor and reference, 12 bytes for every expert parameter and a 32nd of the others.
    states = 12 * (64 * expert + (count - 64 * expert) / 32)
    needed = host(subject(with_(BIG, "run", save_every=0)))
    assert needed.total == pytest.approx(16 * (4 * count + states), rel=1e-3)
    assert needed.pinned_total == pinned_bytes_per_host(BIG) == needed.total


def test_every_phase_is_reported_with_what_torch_does_not_count() -> None:
    needed = memory(subject(BIG))
    by_phase = memory_by_phase(BIG)
    assert tuple(by_phase) == PHASES
    assert set(PHASES) - set(memory_by_phase(PUBLISHED)) == {"log_prob"}
    outside = needed.dies[0].outside_total
    assert outside > 4 * GIB
    assert by_phase["update"] == max(die.total("update") for die in needed.dies) + outside


def test_swapping_takes_the_optimizer_off_the_die_and_pins_what_offloading_pins() -> None:
    swapped, kept = BIG, with_(BIG, "actor", optimizer="offloaded")
    assert fullest(kept, "update") - fullest(swapped, "update") > 25 * GIB
    assert fullest(kept, "log_prob") == fullest(swapped, "log_prob")
    assert pinned_bytes_per_host(swapped) == pinned_bytes_per_host(kept) > 700 * GIB
    resident = with_(kept, "actor", optimizer="die")
    assert fullest(resident, "ref") - fullest(kept, "ref") > 25 * GIB


def test_an_optimizer_on_the_host_is_there_with_pinned_gradients_and_not_on_the_die() -> None:
    h20 = load(CONFIGS / "h20_128gpu_math_lighteval.toml")
    moved = with_(h20, "actor", optimizer="offloaded", optimizer_host_share=None)
    hosted = with_(moved, "actor", optimizer="host")
    states = memory(subject(moved)).dies[1].phases["update"]["optimizer"]
    assert memory(subject(hosted)).dies[1].total("update") == memory(subject(moved)).dies[1].total("update") - states
    before, after = host(subject(moved)), host(subject(hosted))
    # Both have the same elements: three states of each, and one gradient.
    assert after.parts["optimizer"] == before.parts["optimizer"] == 3 * after.parts["gradients"]
    assert after.pinned_total == before.pinned_total - before.parts["optimizer"] + after.parts["gradients"]


def test_what_the_host_does_not_update_stays_on_the_die_in_every_phase() -> None:
    h20 = load(CONFIGS / "h20_128gpu_math_lighteval.toml")
    all_on_host = with_(h20, "actor", optimizer="host", optimizer_host_share=None)
    most = with_(all_on_host, "actor", optimizer_host_share=0.75)
    resident = with_(all_on_host, "actor", optimizer="die")
    for phase in ("log_prob", "ref", "update"):
        on_die = memory(subject(resident)).dies[1].phases[phase]["optimizer"]
        assert "optimizer" not in memory(subject(all_on_host)).dies[1].phases[phase]
        assert memory(subject(most)).dies[1].phases[phase]["optimizer"] == pytest.approx(on_die / 4, rel=1e-6)
    assert host(subject(most)).parts["optimizer"] == pytest.approx(0.75 * host(subject(all_on_host)).parts["optimizer"])


def test_an_update_needs_its_passes_or_what_is_swapped_in_whichever_is_more() -> None:
    assert "activations" in memory(subject(BIG)).dies[1].phases["update"]
    found = fit(Wanted(model="llama3_1_70b", hardware="a2_64", shared="/shared")).found
    update = found.memory.dies[-1].phases["update"]
    # The output layer alone is more than a sixteenth of the stage's elements.
    assert update["optimizer swapped in"] == 12 * 128256 * 8192
    assert "activations" not in update


@pytest.mark.parametrize(
    ("experts", "pieces"),
    [
        (8, 2 * 32 + 1 + 1),  # of two experts, beside the copy that came from another stage and what was made of one
        (1, (256 + 1) + (256 + 1) / 2),  # the second layer of the only expert is half as large as its first
    ],
)
def test_a_sync_holds_the_pieces_of_two_experts(experts: int, pieces: float) -> None:
    run = subject(with_(BIG, "rollout", direct_sync=False))
    run = dataclasses.replace(run, layout=dataclasses.replace(run.layout, actor_expert=256 // experts))
    switch = memory(run).dies[0].phases["switch"]
    assert switch["reshard buffers"] == pieces * (2 * 2048 * 7168 * 2)
    assert "derived weights" not in switch


def test_without_much_to_gather_the_switch_is_fullest_when_weights_are_derived() -> None:
    run = subject(BIG)
    small = dataclasses.replace(run.model, vocabulary=1280, moe_intermediate=2, dense_intermediate=2)
    switch = memory(dataclasses.replace(run, model=small)).dies[0].phases["switch"]
    assert switch["derived weights"] > 2**29 and "reshard buffers" not in switch


def test_without_offload_weights_stay_in_every_phase_once() -> None:
    stays = with_(BIG, "actor", offload_parameters=False)
    for phase in PHASES:
        assert fullest(stays, phase) > fullest(BIG, phase)
    assert "actor weights" not in host(subject(stays)).parts
    die = memory(subject(stays)).dies[0]
    assert sum("actor weights" in kind for kind in die.phases["update"]) == 1


def test_recomputation_trades_activations() -> None:
    none = with_(BIG, "actor", recompute=None)
    half = with_(BIG, "actor", recompute=Recompute(granularity="full", method="block", layers=4))
    assert fullest(none, "update") > fullest(half, "update") > fullest(BIG, "update")
    assert fullest(none, "ref") == fullest(BIG, "ref")


@settings(max_examples=20, deadline=None)
@given(share=st.floats(0.5, 0.95), samples=st.sampled_from([8, 16, 32]))
def test_weights_and_cache_fill_the_share_and_no_more(share: float, samples: int) -> None:
    config = with_(with_(BIG, "rollout", samples_per_prompt=samples), "rollout", memory_share=share)
    needed = memory(subject(config))
    used = needed.dies[0].phases["rollout"]
    filled = used["rollout weights"] + used["derived weights"] + used["KV cache"] + used["engine step"]
    block = needed.cache.bytes_per_token * 128
    assert filled + needed.dies[0].outside_total <= share * needed.limit
    assert filled + needed.dies[0].outside_total + used["engine buffers"] > share * needed.limit - 2 * block


def test_a_cache_without_room_for_a_sequence_does_not_fit() -> None:
    needed = memory(subject(with_(BIG, "rollout", memory_share=0.3)))
    assert not needed.cache.holds_one
    assert not needed.fits
    assert not needed.too_full


def test_stages_that_are_not_the_models_are_refused() -> None:
    with pytest.raises(ConfigError, match="sums to 60, but the model has 61 layers"):
        subject(with_(BIG, "actor", stage_layers=[6, 8, 8, 8, 8, 8, 8, 6]))


def test_sizes_come_from_config_json_where_it_can_be_seen(tmp_path: Path) -> None:
    from recipe.tiny.config import tiny_fields

    (tmp_path / "config.json").write_text(json.dumps(tiny_fields() | {"num_hidden_layers": 61, "hidden_size": 256}))
    config = with_(BIG, "model", path=str(tmp_path), architecture=None)
    assert subject(config).model.hidden == 256
    (tmp_path / "config.json").unlink()
    with pytest.raises(ConfigError, match=r"no config\.json on this machine"):
        subject(config)


def test_the_sums_of_the_tiny_model_have_the_prompts_that_are_planned() -> None:
    from recipe.data.templates import get_template
    from recipe.tiny.arithmetic import split_sums
    from recipe.tiny.tokenizer import train_tokenizer

    tokenizer, template = train_tokenizer(), get_template("r1_zero")
    train, validation = split_sums(19, 0.2, seed=0)
    # The chat template of the tiny tokenizer adds one token at each end of the question.
    longest = max(len(tokenizer.encode(template.messages(s.question)[-1]["content"]).ids) for s in train + validation)
    assert TINY_PROMPT_TOKENS - 8 < longest + 2 <= TINY_PROMPT_TOKENS


def test_the_stand_in_takes_long_sequences_one_by_one() -> None:
    from megatron_patches.core.extensions.standin.attention import _MAX_AREA

    assert activations.STAND_IN_SCORES == _MAX_AREA
    scores = activations.attention_most(MODEL, fused=False, sequence=4096, tokens=4096, backward=False)

    def needed(sequences: int) -> int:
        return activations.forward_pass(
            MODEL, range(1, 2), last=False, tokens=sequences * 4096, sequence=4096, tensor=1, fused=False, stacked=0,
            load=1.0, router=4, entropy=False,
        )  # fmt: skip

    assert needed(1) > scores
    # Its scores and weights are given back before the next: float32 for every pair of its tokens and every head.
    assert scores > 2 * MODEL.heads * 4096**2 * 4
    assert 0 < needed(2) - needed(1) < needed(4) - needed(1) < scores / 6


def test_what_an_update_leaves_is_there_until_the_actors_next_pass() -> None:
    left = "left by the update"
    state = 8192 * 2048 * 2  # hidden states of a micro-batch, bfloat16
    first, last = memory(subject(load(CONFIGS / "a3_16die_qwen3_30b_a3b.toml"))).dies
    # The first of 24 recomputed layers has let go of its two when its experts are at work; the head comes last of all.
    assert first.phases["log_prob"][left] == 23 * 2 * state and left not in last.phases["log_prob"]
    assert left not in first.phases["ref"] and first.phases["switch"][left] == 24 * 2 * state
    # An on-policy run has no such pass before the reference's.
    on_policy = memory(subject(load(CONFIGS / "a3_256die_random_init.toml"))).dies[1]
    assert on_policy.phases["ref"][left] == on_policy.phases["rollout"][left] > 2**29
