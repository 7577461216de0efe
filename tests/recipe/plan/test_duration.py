# SPDX-License-Identifier: Apache-2.0
"""How the estimated time of a step follows from the run."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from recipe.plan.calibration import fitted
from recipe.plan.duration import Estimate, estimate
from recipe.plan.subject import Subject, subject
from recipe.plan.traffic import lengths
from recipe.plan.work import work_of
from recipe.runfile.config import load
from recipe.runfile.schema import HARDWARE, ON_POLICY, RunConfig

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
BIG = load(CONFIGS / "a3_256die.toml")


def with_(config: RunConfig, section: str, **values: Any) -> RunConfig:
    return dataclasses.replace(config, **{section: dataclasses.replace(getattr(config, section), **values)})


VANILLA = with_(BIG, "train", loss_mode="vanilla")


def times(run: Subject, prompt: float = 175.0, response: float = 1385.0) -> Estimate:
    made = estimate(run, lengths(run, prompt, response))
    assert made is not None
    return made


def test_simulated_dies_have_no_speed() -> None:
    run = subject(load(CONFIGS / "sim_4die.toml"))
    assert estimate(run, lengths(run)) is None


def test_without_the_pass_for_the_old_log_probs_its_time_is_gone() -> None:
    made, without = times(subject(VANILLA)), times(subject(with_(BIG, "train", loss_mode=ON_POLICY)))
    assert (without.phases["log_prob"].estimate, without.phases["log_prob"].high) == (0, 0)
    assert without.step.estimate == pytest.approx(made.step.estimate - made.phases["log_prob"].estimate)
    assert without.phases["ref"] == made.phases["ref"]


@pytest.mark.parametrize(("prompt", "response"), [(300.0, 1385.0), (175.0, 2000.0)])
def test_more_tokens_take_longer_in_every_phase(prompt: float, response: float) -> None:
    run = subject(VANILLA)
    less, more = times(run), times(run, prompt, response)
    for phase in ("generation and switches", "log_prob", "ref", "update"):
        assert more.phases[phase].estimate > less.phases[phase].estimate
        assert more.phases[phase].low > less.phases[phase].low


def test_more_sequences_take_longer_in_every_phase() -> None:
    less, more = times(subject(VANILLA)), times(subject(with_(VANILLA, "train", prompts_per_step=1024)))
    assert all(more.phases[phase].estimate > time.estimate for phase, time in less.phases.items())


def test_the_longest_answer_counts_where_the_mean_stays() -> None:
    longer = times(subject(with_(BIG, "data", max_response_tokens=4096)))
    made = times(subject(BIG))
    more = longer.phases["generation and switches"].estimate - made.phases["generation and switches"].estimate
    weights = work_of(subject(BIG), lengths(subject(BIG))).weight_bytes / 1.6e12
    assert more == pytest.approx(2048 * (fitted()["engine step"] + weights))


@pytest.mark.parametrize("nodes", [32, 64])
def test_more_dies_are_not_slower_and_train_nearly_so_many_times_as_fast(nodes: int) -> None:
    instances = nodes // 16
    made = times(subject(BIG))
    more = times(subject(with_(with_(BIG, "cluster", nodes=nodes), "rollout", instances=instances)))
    assert all(more.phases[phase].estimate <= time.estimate for phase, time in made.phases.items())
    assert more.phases["update"].estimate / made.phases["update"].estimate == pytest.approx(1 / instances, rel=0.1)
    # However many dies there are, the longest answer is generated token by token.
    assert more.phases["generation and switches"].estimate > 0.8 * made.phases["generation and switches"].estimate


def test_dies_of_lower_rates_take_longer() -> None:
    a3, a2 = times(subject(BIG)), times(subject(with_(BIG, "cluster", hardware="a2_64")))
    for phase in ("generation and switches", "ref", "update"):
        assert a2.phases[phase].estimate > a3.phases[phase].estimate
    ratio = a2.phases["update"].estimate / a3.phases["update"].estimate
    assert ratio == pytest.approx(HARDWARE["a3_128"].tflops_bf16 / HARDWARE["a2_64"].tflops_bf16)


@pytest.mark.parametrize(
    ("hardware", "sent", "rate"),
    [
        ("a2_64", "node_bytes", 196),
        ("a2_64", "network_bytes", 25),
        ("a3_128", "node_bytes", 196),
        ("a3_128", "network_bytes", 196),
    ],
)
def test_what_stays_in_a_node_takes_its_link_and_the_rest_the_network(hardware: str, sent: str, rate: float) -> None:
    run = subject(with_(BIG, "cluster", hardware=hardware))
    mean = lengths(run)
    counted = work_of(run, mean)
    less, more = (
        estimate(run, mean, dataclasses.replace(counted, **{sent: getattr(counted, sent) + extra}))
        for extra in (0.0, 1e13)
    )
    assert less is not None and more is not None
    assert more.step.estimate - less.step.estimate == pytest.approx(1e13 / (rate * 1e9))


def test_throughput_is_of_what_is_sold_and_lowest_in_the_longest_step() -> None:
    made = times(subject(BIG))
    assert made.devices == 128
    rate, step = made.tokens_per_second_per_device, made.step
    assert rate.estimate == pytest.approx(8192 * 1560 / step.estimate / 128)
    assert (rate.low, rate.high) == pytest.approx((8192 * 1560 / step.high / 128, 8192 * 1560 / step.low / 128))
    assert step.low < step.estimate < step.high


def test_work_that_was_counted_otherwise_is_timed_instead() -> None:
    run = subject(BIG)
    mean = lengths(run)
    counted = work_of(run, mean)
    made = estimate(run, mean, counted)
    heavier = estimate(run, mean, dataclasses.replace(counted, update_flops=3 * counted.update_flops))
    assert made is not None and heavier is not None
    assert made.phases == times(run, 1024, 2048).phases
    assert heavier.phases["update"].estimate == pytest.approx(3 * made.phases["update"].estimate)
    assert heavier.phases["ref"] == made.phases["ref"]
