# SPDX-License-Identifier: Apache-2.0
"""What the launcher tells MindSpeed, where it is there."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from recipe.runfile import mindspeed
from recipe.runfile.config import load
from recipe.runfile.errors import ConfigError
from recipe.runfile.schema import RunConfig

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
SIM, NPU, CUDA = (load(CONFIGS / f"{name}.toml") for name in ("sim", "a3_256die", "h20_128gpu_math_lighteval"))


def test_without_mindspeed_it_is_told_nothing(tmp_path: Path) -> None:
    assert mindspeed.overrides(SIM, tmp_path) == {}


def test_with_mindspeed_a_layout_it_refuses_does_not_start(tmp_path: Path) -> None:
    (tmp_path / "mindspeed").mkdir()
    assert mindspeed.overrides(SIM, tmp_path) == mindspeed.transformer_overrides()
    split = dataclasses.replace(SIM, actor=dataclasses.replace(SIM.actor, tensor_parallel=2))
    with pytest.raises(ConfigError, match="tensor_parallel = 2 with MindSpeed, which refuses it"):
        mindspeed.overrides(split, tmp_path)


def test_npus_have_it_wherever_the_run_file_is_read(tmp_path: Path) -> None:
    told = mindspeed.overrides(NPU, tmp_path)
    assert told.items() >= mindspeed.transformer_overrides().items()
    assert told["swap_optimizer"] is True
    assert told["pipeline_num_transformer_layers"] == [[6], *[[8]] * 6, [7]]


def test_gpus_never_have_it(tmp_path: Path) -> None:
    (tmp_path / "mindspeed").mkdir()
    assert mindspeed.overrides(CUDA, tmp_path) == {}


@pytest.mark.parametrize("config", [SIM, CUDA], ids=["sim", "cuda"])
def test_its_optimizer_is_refused_without_it(tmp_path: Path, config: RunConfig) -> None:
    swapping = dataclasses.replace(config, actor=dataclasses.replace(config.actor, optimizer="swapped"))
    with pytest.raises(ConfigError, match=r'optimizer = "swapped" with device .* expected MindSpeed'):
        mindspeed.overrides(swapping, tmp_path)
