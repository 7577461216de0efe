# SPDX-License-Identifier: Apache-2.0
"""What the launcher tells MindSpeed, where it is there."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from recipe.launch import mindspeed
from recipe.launch.config import load
from recipe.launch.errors import ConfigError

SIM = load(Path(__file__).resolve().parents[3] / "configs" / "sim.toml")


def test_without_mindspeed_it_is_told_nothing(tmp_path: Path) -> None:
    assert mindspeed.overrides(SIM, tmp_path, pytest.fail) == {}


def test_with_mindspeed_a_layout_it_refuses_does_not_start(tmp_path: Path) -> None:
    (tmp_path / "mindspeed").mkdir()
    said: list[str] = []
    assert mindspeed.overrides(SIM, tmp_path, said.append) == mindspeed.transformer_overrides()
    assert said == ["MindSpeed is among the upstreams and adapts Megatron-core"]
    split = dataclasses.replace(SIM, actor=dataclasses.replace(SIM.actor, tensor_parallel=2))
    with pytest.raises(ConfigError, match="tensor_parallel is 2, which MindSpeed refuses"):
        mindspeed.overrides(split, tmp_path, said.append)
