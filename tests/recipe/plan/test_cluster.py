# SPDX-License-Identifier: Apache-2.0
"""The smallest cluster: it fits, less does not, and preflight accepts it, whatever the dies are."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from recipe.checks.facts.machine import Machine, this_machine
from recipe.plan.cluster import SmallestCluster, smallest_cluster
from recipe.plan.memory import memory
from recipe.plan.subject import subject
from recipe.preflight import refusals
from recipe.runfile.config import load
from recipe.runfile.schema import CUDA, HARDWARE, OFFLOADED, SWAPPED, Recompute, RunConfig

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
SIMULATED = ("sim", "sim_4die", "sim_balance", "sim_legal")
BIG = ("a3_256die", "a3_256die_random_init", "a3_256die_true_weight", "a3_384die_base_acc", "h20_128gpu_math_lighteval")
# Its updates have eight sequences, so that a stage has eight dies at most, which share 671B parameters by 16 stages.
NOWHERE = {("h20_128gpu_math_lighteval", hardware) for hardware in HARDWARE if not hardware.endswith("_141")}
ANYWHERE = [(name, hardware) for name in ("a3_256die", "h20_128gpu_math_lighteval") for hardware in HARDWARE]
AT_HOME = [(name, load(CONFIGS / f"{name}.toml").cluster.hardware) for name in BIG]


@pytest.fixture(scope="module")
def machine() -> Machine:
    return this_machine()


def with_(config: RunConfig, section: str, **values: Any) -> RunConfig:
    return dataclasses.replace(config, **{section: dataclasses.replace(getattr(config, section), **values)})


def on(name: str, hardware: str) -> RunConfig:
    """A shipped run on as many dies of a kind, with an optimizer that these have."""
    config, kind = load(CONFIGS / f"{name}.toml"), HARDWARE[hardware]
    dies = config.cluster.nodes * config.cluster.dies_per_node
    nodes = dies // kind.dies_per_node
    config = with_(
        config, "cluster", device=kind.device, hardware=hardware, nodes=nodes, dies_per_node=kind.dies_per_node
    )
    if kind.device == CUDA and config.actor.optimizer == SWAPPED:
        config = with_(config, "actor", optimizer=OFFLOADED)
    return config


def found(config: RunConfig) -> SmallestCluster:
    smallest = smallest_cluster(subject(config))
    assert smallest is not None
    return smallest


@pytest.mark.parametrize(("name", "hardware"), dict.fromkeys([*ANYWHERE, *AT_HOME]))
def test_preflight_accepts_what_is_found_on_every_kind_of_die(name: str, hardware: str, machine: Machine) -> None:
    smallest = smallest_cluster(subject(on(name, hardware)))
    assert (smallest is None) == ((name, hardware) in NOWHERE)
    if smallest is not None:
        assert memory(smallest.run).fits
        assert [finding.line for finding in refusals(smallest.run.config, machine=machine)] == []


@pytest.mark.parametrize("name", SIMULATED)
def test_preflight_accepts_what_is_found_of_simulated_dies(name: str, machine: Machine) -> None:
    smallest = found(load(CONFIGS / f"{name}.toml"))
    assert memory(smallest.run).fits
    assert smallest.run.layout.dies == 2  # one die cannot: all experts on one rank cannot be handed to the rollout
    assert [finding.line for finding in refusals(smallest.run.config, machine=machine)] == []


def test_engines_on_gpus_are_instances_of_their_own() -> None:
    layout = found(load(CONFIGS / "h20_128gpu_math_lighteval.toml")).run.layout
    assert layout.rollout_data == 1 and layout.rollout_instances == layout.rollout_engines > 1


def test_a_graph_has_as_many_heads_as_it_takes() -> None:
    """32 heads: on two dies of an engine, which have room where one has not, there would be 16."""
    small = with_(load(CONFIGS / "sim_legal.toml"), "simulator", hbm_mib=128)
    assert smallest_cluster(subject(small)) is None
    assert found(with_(small, "rollout", graph_mode=False)).run.layout.rollout_tensor == 2
    assert found(load(CONFIGS / "sim_legal.toml")).run.layout.rollout_tensor == 1


def test_an_engine_has_no_more_sequences_than_tokens(machine: Machine) -> None:
    tight = with_(load(CONFIGS / "a3_256die.toml"), "rollout", max_batched_tokens=64)
    smallest = found(tight)
    assert smallest.run.layout.rollout_sequences_per_engine <= 64
    assert [finding.line for finding in refusals(smallest.run.config, machine=machine)] == []


def test_groups_of_recomputed_layers_are_those_of_the_new_stages(machine: Machine) -> None:
    grouped = Recompute(granularity="full", method="uniform", layers=8)
    smallest = found(with_(load(CONFIGS / "a3_256die.toml"), "actor", recompute=grouped))
    assert [finding.line for finding in refusals(smallest.run.config, machine=machine)] == []


def test_the_memory_of_a_node_decides_too(machine: Machine) -> None:
    big = load(CONFIGS / "a3_256die.toml")
    free, bound = found(with_(big, "cluster", host_memory_gib_per_node=4000.0)), found(big)
    assert bound.run.config.cluster.nodes > free.run.config.cluster.nodes
    assert bound.memory.host.total <= 1862 * 2**30 < free.memory.host.total
    assert [finding.line for finding in refusals(bound.run.config, machine=machine)] == []
