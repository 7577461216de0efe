# SPDX-License-Identifier: Apache-2.0
"""A run does not begin on upstream sources that the patches were not written for."""

from __future__ import annotations

import pytest

from recipe.launch.config import load
from recipe.launch.environment import REPO
from recipe.launch.errors import LaunchError
from recipe.launch.run import launch

SIM = REPO / "configs" / "sim.toml"


@pytest.fixture
def upstream(tmp_path, monkeypatch):
    monkeypatch.setenv("RECIPE_UPSTREAM", str(tmp_path / "upstream"))
    monkeypatch.setenv("RECIPE_RUNS", str(tmp_path / "runs"))
    return tmp_path / "upstream"


def test_changed_upstream(upstream, tmp_path):
    (upstream / "verl").mkdir(parents=True)
    (upstream / "verl" / "protocol.py").write_text("class DataProto:\n    def concat(data): return data\n")
    with pytest.raises(LaunchError, match=r"verl_patches\.protocol:concat .* has changed"):
        launch(load(SIM), SIM)
    assert not (tmp_path / "runs").exists()


def test_no_upstream(upstream, tmp_path):
    with pytest.raises(LaunchError, match="holds no verl; run `python -m recipe sync`"):
        launch(load(SIM), SIM)
    assert not (tmp_path / "runs").exists()
