# SPDX-License-Identifier: Apache-2.0
"""Bytes sent: by hand, and how they follow from the layout."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from recipe.models.published import KNOWN
from recipe.plan import reshard
from recipe.plan.routes import peak_bytes, routes_of, world
from recipe.plan.stages import stage_buffers, stage_tensors
from recipe.plan.subject import subject
from recipe.plan.traffic import lengths, traffic
from recipe.runfile.config import load
from recipe.runfile.schema import ON_POLICY, RunConfig

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
BIG = load(CONFIGS / "a3_256die.toml")
SIM4 = load(CONFIGS / "sim_4die.toml")
MODEL = KNOWN["deepseek_v3_671b"]


def with_(config: RunConfig, section: str, **values: Any) -> RunConfig:
    return dataclasses.replace(config, **{section: dataclasses.replace(getattr(config, section), **values)})


VANILLA = with_(BIG, "train", loss_mode="vanilla")
STOCK_SYNC = with_(BIG, "rollout", direct_sync=False)


def sent(config: RunConfig, **means: float) -> dict[str, int]:
    run = subject(config)
    return traffic(run, lengths(run, **means))


def test_the_stock_sync_brings_all_experts_to_every_die() -> None:
    nbytes = sent(STOCK_SYNC)
    experts = MODEL.moe_layers * MODEL.experts * 3 * MODEL.moe_intermediate * MODEL.hidden * 2
    assert nbytes["reshard, expert all-gather"] == experts * 31 // 32
    assert "reshard, tensor all-gather" not in nbytes


def test_experts_receive_each_token_once_a_pass_and_chosen_expert() -> None:
    nbytes = sent(BIG, prompt=100, response=400)
    tokens = 256 * 500  # of the sequences of one of 32 data parallel ranks
    one_pass = tokens * 8 * 8 * (2 * 7168 * 2 + 4) * 31 / 32  # 8 layers of the fullest stage, 8 experts a token
    assert nbytes["expert all-to-all, ref"] == pytest.approx(one_pass, rel=1e-6)
    # Forward, recomputed forward, and backward.
    assert nbytes["expert all-to-all, update"] == pytest.approx(3 * one_pass, rel=1e-6)


def test_layers_that_are_kept_are_not_passed_again() -> None:
    # Stages of 11 layers, of which the first 9 are computed again.
    nbytes = sent(load(CONFIGS / "a3_384die_base_acc.toml"))
    update, once = (nbytes[f"expert all-to-all, {phase}"] for phase in ("update", "ref"))
    assert update / once == pytest.approx((11 + 11 + 9) / 11)
    assert sent(with_(BIG, "actor", recompute=None))["expert all-to-all, update"] == pytest.approx(
        2 * sent(BIG)["expert all-to-all, ref"]
    )


def test_gradients_are_scattered_in_float32_and_parameters_gathered_in_bfloat16_by_each_of_two_optimizers() -> None:
    nbytes = sent(BIG)["gradients and parameters"]
    shared = max(  # the first and the last stage have a vocabulary beside their layers
        sum(t.elements for t in stage_tensors(subject(BIG), stage) if not t.expert) for stage in range(8)
    )
    assert nbytes == pytest.approx((4 + 2 * 2) * shared * 31 / 32, rel=1e-4)
    assert sent(with_(BIG, "train", updates_per_step=2))["gradients and parameters"] == pytest.approx(2 * nbytes)


def test_without_the_pass_for_the_old_log_probs_there_is_none_of_its_traffic() -> None:
    assert BIG.train.loss_mode == ON_POLICY
    assert "expert all-to-all, log_prob" in sent(VANILLA) and "expert all-to-all, log_prob" not in sent(BIG)
    assert sent(BIG)["host, offloads"] < sent(VANILLA)["host, offloads"]


def test_weights_that_stay_until_the_sync_spare_one_coming_and_going() -> None:
    for run in (BIG, VANILLA, with_(SIM4, "actor", optimizer="offloaded")):
        leaving, staying = subject(with_(run, "actor", keep_until_sync=False)), subject(run)
        for stage in range(staying.layout.actor_pipeline):
            of = [traffic(one, lengths(one), [stage])["host, offloads"] for one in (leaving, staying)]
            assert of[0] - of[1] == 2 * stage_buffers(staying, stage).parameter_bytes
    resident = with_(BIG, "actor", offload_parameters=False)
    assert sent(with_(resident, "actor", keep_until_sync=False)) == sent(resident)


def test_one_stage_sends_nothing_down_a_pipeline() -> None:
    assert "pipeline" in sent(SIM4)
    assert "pipeline" not in sent(with_(SIM4, "actor", stage_layers=[4]))


def test_the_ends_of_a_pipeline_have_one_neighbour() -> None:
    run = subject(VANILLA)
    by_stage = [traffic(run, lengths(run), [stage])["pipeline"] for stage in (0, 1, 7)]
    assert [size / by_stage[2] for size in by_stage] == [3, 4, 1]  # three passes forward, one back
    assert traffic(run, lengths(run))["pipeline"] == by_stage[1]


def test_an_optimizer_on_the_host_takes_gradients_and_gives_weights() -> None:
    h20 = load(CONFIGS / "h20_128gpu_math_lighteval.toml")
    resident = with_(h20, "actor", optimizer="die", optimizer_host_share=None)
    extra = sent(with_(resident, "actor", optimizer="host"))["host, offloads"] - sent(resident)["host, offloads"]
    elements = max(stage_buffers(subject(h20), stage).optimizer_elements for stage in range(16))
    assert extra == pytest.approx(h20.train.updates_per_step * (4 + 2) * elements, rel=1e-6)


def test_a_direct_sync_brings_a_die_what_it_lacks_and_takes_its_buffer() -> None:
    figures = world(routes_of(subject(BIG)))
    lacking = [a.needed - a.own + b.needed - b.own for a, b in zip(figures.experts, figures.dense, strict=True)]
    nbytes = sent(BIG)
    assert nbytes["reshard, direct"] == max(lacking)
    assert not {"reshard, pipeline broadcast", "reshard, expert all-gather"} & set(nbytes)
    run = subject(BIG)
    assert traffic(run, lengths(run), [7])["reshard, direct"] == max(lacking[224:])
    assert reshard.buffer_bytes(run) == [512 * 2**20] * 8
    assert reshard.buffer_bytes(subject(with_(BIG, "rollout", direct_sync_buffer_mib=64))) == [64 * 2**20] * 8
    assert min(reshard.buffer_bytes(subject(STOCK_SYNC))) > 3 * 2**30


def test_of_a_tiny_model_all_is_on_the_way_at_once_and_far_from_the_limit() -> None:
    run = subject(SIM4)
    routes = routes_of(run)
    peaks = [max(r.buffer_bytes for r in routes.of_rank(rank).all_rounds) for rank in range(4)]
    assert peaks == peak_bytes(routes)
    assert reshard.buffer_bytes(run) == [max(peaks[:2]), max(peaks[2:])]
    assert 0 < max(peaks) < 2**20


def test_a_gpus_rollout_knows_no_direct_sync() -> None:
    h20 = load(CONFIGS / "h20_128gpu_math_lighteval.toml")
    assert sent(with_(h20, "rollout", direct_sync=False)) == sent(h20)
