# SPDX-License-Identifier: Apache-2.0
"""The table of derived keys is true: every key of the run file is changed, and what follows is compared with it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from recipe.launch.resume import Start
from recipe.runfile.config import load
from recipe.runfile.derive import derive_run
from recipe.runfile.errors import ConfigError
from recipe.runfile.passed.derived_keys import DEFAULTS, DERIVED
from recipe.runfile.passed.require import require_own
from recipe.runfile.schema import CUDA, RunConfig
from tests.recipe.runfile.test_config_doc import AGAIN, NPU, OTHER, OTHER_SIM, SIM, changed

REPO = Path(__file__).resolve().parents[4]
CONFIGS = sorted((REPO / "configs").glob("*.toml"))
# Settings that no other value of a single key shows: it needs others to go with it, or another of the run files.
GPU = next(config for config in map(load, CONFIGS) if config.cluster.device == CUDA)
DENSE = next(config for config in map(load, CONFIGS) if config.model.architecture == "qwen3_8b")
OFFLOADED = changed(NPU, {"actor.optimizer": "offloaded"})
PROFILED = changed(NPU, OTHER["profile.steps"])
MORE: list[tuple[RunConfig, str, dict[str, Any]]] = [
    (NPU, "actor.stage_layers", {"actor.stage_layers": [15, 15, 15, 16]}),
    *((base, "cluster.device", {"cluster.device": CUDA, "cluster.hardware": "h20_96"}) for base in (OFFLOADED, DENSE)),
    (GPU, "actor.moe_profile", {"actor.moe_profile": "default" if GPU.actor.moe_profile == "stable" else "stable"}),
    (DENSE, "model.architecture", {"model.architecture": "qwen3_30b_a3b"}),
    (SIM, "cluster.dies_per_node", {"cluster.dies_per_node": 2 * SIM.cluster.dies_per_node}),
    *((PROFILED, name, values) for name, values in OTHER.items() if name.startswith("profile.")),
]
MIX = "custom_reward_function.reward_kwargs.mix"


def told(config: RunConfig) -> dict[str, str]:
    """What verl is told, by the full keys of its configuration."""
    pairs = (item.lstrip("+").split("=", 1) for item in derive_run(config).complete().overrides)
    return {MIX if key.startswith(f"{MIX}.") else key: value for key, value in pairs}


def variants() -> Iterator[tuple[RunConfig, str, dict[str, Any]]]:
    for base, others in ((NPU, OTHER), (SIM, OTHER_SIM)):
        for name, values in others.items():
            if name == "run.trackers_online":  # verl is not told of it
                continue
            yield base, name, values
            yield base, name, AGAIN.get(name, values)
    yield from MORE


@pytest.fixture(scope="module")
def computed() -> dict[str, tuple[str, ...]]:
    table: dict[str, set[str]] = defaultdict(set)
    for config in map(load, CONFIGS):
        for key in told(config):
            _ = table[key]
    for start in (Start(Path("run")), Start(Path("run"), Path("checkpoint"), 1)):
        for override in start.overrides():
            _ = table[override.partition("=")[0]]
    before = {id(base): told(base) for base in (NPU, SIM, GPU, DENSE, OFFLOADED, PROFILED)}
    for base, name, values in variants():
        now = told(changed(base, values))
        for key in {*before[id(base)], *now}:
            table[key] |= {name} if before[id(base)].get(key) != now.get(key) else set()
    return {key: tuple(sorted(names)) for key, names in sorted(table.items())}


def test_the_table_says_what_changes_what(computed: dict[str, tuple[str, ...]]) -> None:
    assert computed == DERIVED, "correct recipe/runfile/passed/derived_keys.py"
    assert not any(DERIVED[key] for key in DEFAULTS), "a key of the run file changes it"


@pytest.mark.parametrize("key", DERIVED)
def test_a_derived_key_is_refused_by_the_name_of_ours(key: str) -> None:
    if key in DEFAULTS:
        require_own({key: 1})
        return
    with pytest.raises(ConfigError) as caught:
        require_own({f"++{key}": 1})
    message = str(caught.value)
    assert message.startswith(f"[verl] {key} ") and "\n" not in message
    assert all(name in message for name in DERIVED[key])
    assert DERIVED[key] or "set by the recipe" in message
