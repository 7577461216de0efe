# SPDX-License-Identifier: Apache-2.0
"""What a run file says of its dies, and the memory that follows."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from recipe.runfile.config import load
from recipe.runfile.errors import ConfigError
from recipe.runfile.schema import ASSUMED, CUDA, DIE_KINDS, GIB, MIB, NPU, RunConfig

CONFIGS = Path(__file__).resolve().parents[3] / "configs"


def changed(config: RunConfig, **cluster: Any) -> RunConfig:
    return dataclasses.replace(config, cluster=dataclasses.replace(config.cluster, **cluster))


@pytest.mark.parametrize("name", DIE_KINDS)
def test_torch_is_offered_less_than_the_label(name: str) -> None:
    kind = DIE_KINDS[name]
    assert 0.95 * kind.label_gb * 1e9 < kind.offered_gib * GIB
    assert kind.offered_gib < kind.label_gb
    assert kind.source


def test_the_hardware_gives_the_memory_unless_the_file_states_it() -> None:
    a3 = load(CONFIGS / "a3_256die.toml")
    assert a3.hbm_bytes_per_die == int(61.27 * GIB)
    assert changed(a3, hardware="a2").hbm_bytes_per_die == int(60.96 * GIB)
    assert changed(a3, hardware="a2", hbm_gib_per_die=32.0).hbm_bytes_per_die == 32 * GIB
    h20 = load(CONFIGS / "h20_128gpu_math_lighteval.toml")
    assert h20.hbm_bytes_per_die == int(139.80 * GIB)


@pytest.mark.parametrize("device", [NPU, CUDA])
def test_a_file_that_names_none_means_what_is_assumed_of_its_device(device: str) -> None:
    assert DIE_KINDS[ASSUMED[device]].device == device
    silent = changed(load(CONFIGS / "a3_256die.toml"), device=device, hardware=None)
    assert silent.cluster.die_kind == ASSUMED[device]
    assert silent.hbm_bytes_per_die == int(DIE_KINDS[ASSUMED[device]].offered_gib * GIB)


def test_a_simulated_die_is_of_no_kind() -> None:
    sim = load(CONFIGS / "sim.toml")
    assert sim.cluster.die_kind is None
    assert sim.hbm_bytes_per_die == 256 * MIB


def test_hardware_of_another_device_is_refused(tmp_path: Path) -> None:
    text = (CONFIGS / "a3_256die.toml").read_text(encoding="utf-8")
    file = tmp_path / "run.toml"
    file.write_text(text.replace('hardware = "a3"', 'hardware = "h20"'), encoding="utf-8")
    with pytest.raises(ConfigError, match='hardware = "h20" with device = "npu"; expected one of a2, a3'):
        load(file)
