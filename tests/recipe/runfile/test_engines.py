# SPDX-License-Identifier: Apache-2.0
"""What model and device rule out of the rollout's engines, each rule by a run that breaks it and nothing else."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from recipe.models.published import KNOWN
from recipe.runfile.config import load
from recipe.runfile.engines import (
    BUDGET,
    GRAPH_HEADS,
    GRAPH_SIZE,
    JOINED_ON_GPUS,
    UNEVEN_EXPERTS,
    compiled_sizes,
    graph_options,
    graph_sequences,
    misfits,
)
from recipe.runfile.layout import lay_out
from recipe.runfile.schema import RunConfig

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
MODEL = KNOWN["deepseek_v3_671b"]


def with_(config: RunConfig, section: str, **values: Any) -> RunConfig:
    return dataclasses.replace(config, **{section: dataclasses.replace(getattr(config, section), **values)})


def broken(config: RunConfig, strict: bool = True) -> list[str]:
    model = KNOWN[config.model.architecture] if config.model.architecture else MODEL
    return [misfit.rule for misfit in misfits(config, lay_out(config), model, strict)]


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("[ah]*.toml")), ids=lambda path: path.stem)
def test_nothing_of_the_shipped_runs_is_ruled_out(path: Path) -> None:
    assert broken(load(path)) == []


def test_every_rule_is_broken_by_itself() -> None:
    a3, h20 = load(CONFIGS / "a3_256die.toml"), load(CONFIGS / "h20_128gpu_math_lighteval.toml")
    odd = with_(with_(a3, "cluster", nodes=12), "train", prompts_per_step=768)
    assert broken(with_(odd, "actor", expert_parallel=24)) == [UNEVEN_EXPERTS]
    assert broken(with_(h20, "rollout", instances=2)) == [JOINED_ON_GPUS]
    eager = with_(a3, "rollout", graph_mode=False, max_batched_tokens=63)
    assert broken(eager) == [BUDGET]
    assert broken(with_(a3, "rollout", tensor_parallel=8)) == [GRAPH_HEADS]


def test_graphs_are_for_whole_sequences_on_each_die() -> None:
    """Of 128 answers over 128 engines each has one, padded to the two dies of an engine."""
    few = with_(with_(load(CONFIGS / "a3_256die.toml"), "train", prompts_per_step=8), "rollout", max_batched_tokens=1)
    assert graph_sequences(lay_out(few)) == 2
    assert broken(few) == [GRAPH_SIZE]
    assert broken(with_(few, "rollout", graph_mode=False)) == []


def test_only_a_strict_device_minds_the_heads() -> None:
    eight = with_(load(CONFIGS / "a3_256die.toml"), "rollout", tensor_parallel=8)
    assert broken(eight, strict=False) == []
    assert broken(with_(eight, "rollout", graph_mode=False)) == []


def test_what_is_compiled_is_what_is_asked_for() -> None:
    a3 = load(CONFIGS / "a3_256die.toml")
    for asked, compiled in ((None, [4, 8, 16, 32, 64]), ([], [4, 8, 16, 32, 64]), ([32, 8], [8, 32, 64])):
        run = with_(a3, "rollout", graph_sizes=asked)
        assert compiled_sizes(run.rollout, lay_out(run)) == compiled
        assert graph_options(run.rollout) == ({"graph_batch_sizes": [8, 32]} if asked else {})
    assert compiled_sizes(with_(a3, "rollout", graph_mode=False).rollout, lay_out(a3)) == []
