# SPDX-License-Identifier: Apache-2.0
"""What the sampler's choices of experts take, by hand."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from recipe.models.published import KNOWN
from recipe.plan.choices import KIND, bytes_per_token
from recipe.plan.memory import memory
from recipe.plan.subject import subject
from recipe.plan.traffic import lengths, traffic
from recipe.runfile.config import load
from recipe.runfile.schema import RunConfig

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
MODEL = KNOWN["deepseek_v3_671b"]
# 58 layers, 8 experts, a byte each.
EACH = 464


def replaying(name: str) -> RunConfig:
    config = load(CONFIGS / name)
    return dataclasses.replace(config, train=dataclasses.replace(config.train, routing_replay="rollout"))


def test_a_number_below_256_takes_a_byte() -> None:
    assert bytes_per_token(MODEL) == EACH
    assert bytes_per_token(dataclasses.replace(MODEL, experts=257)) == 2 * EACH


def test_the_256_dies() -> None:
    run = subject(replaying("a3_256die.toml"))
    # A node's 8 engines sample 64 answers each; its 16 dies train 16 of the 32 parts of the batch, 256 answers each.
    assert memory(run).host.parts[KIND] == (8 * 64 + 16 * 256) * 3071 * EACH
    assert KIND not in memory(run).host.pinned
    # 256 answers to each die of a node.
    assert traffic(run, lengths(run, prompt=100, response=1385))[KIND] == 256 * 1485 * EACH


def test_dies_that_train_the_same_answers_fetch_them_once_for_their_node() -> None:
    """Four dies of a node: two stages of two data parallel ranks, 128 answers each; two engines of two dies."""
    run = subject(replaying("sim_4die.toml"))
    each = bytes_per_token(run.model)
    sampled, trained = 2 * run.layout.rollout_sequences_per_engine, 2 * run.layout.actor_sequences_per_rank
    assert run.layout.actor_data == 2 and run.layout.actor_pipeline == 2
    assert memory(run).host.parts[KIND] == (sampled + trained) * (run.sequence_tokens - 1) * each
    mean = lengths(run, prompt=10, response=10)
    assert traffic(run, mean)[KIND] == pytest.approx(trained * 20 * each / 4, abs=1)


def test_without_replay_there_are_none() -> None:
    run = subject(load(CONFIGS / "a3_256die.toml"))
    assert KIND not in memory(run).host.parts
    assert KIND not in traffic(run, lengths(run))
