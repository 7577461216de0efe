# SPDX-License-Identifier: Apache-2.0
"""Trackers write into the run's directory, or are given what the user's environment holds, and nobody else is."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from recipe.runfile import trackers
from recipe.runfile.config import load
from recipe.runfile.derive import derive_run
from recipe.runfile.errors import ConfigError
from recipe.runfile.inherited import full_environment
from recipe.runfile.paths import RunPaths
from recipe.runfile.schema import TRACKERS, RunConfig

REPO = Path(__file__).resolve().parents[3]
SIM = load(REPO / "configs" / "sim.toml")
PATHS = RunPaths(Path("/runs/one"), "id", Path("/tmp/grpo-1"))


def tracked(*names: str, online: bool = False) -> RunConfig:
    return dataclasses.replace(SIM, run=dataclasses.replace(SIM.run, trackers=list(names), trackers_online=online))


def variables(config: RunConfig) -> dict[str, str]:
    names = ("TENSORBOARD_DIR", "WANDB_DIR", "WANDB_MODE", "SWANLAB_LOG_DIR", "SWANLAB_MODE", "MLFLOW_TRACKING_URI",
             "MLFLOW_ALLOW_FILE_STORE")  # fmt: skip
    environment = derive_run(config, paths=PATHS).environment
    return {name: environment[name] for name in names if name in environment}


def test_verls_own_loggers_stay() -> None:
    assert "trainer.logger=[console,file]" in derive_run(SIM).overrides
    assert "trainer.logger=[console,file,wandb]" in derive_run(tracked("wandb")).overrides
    assert variables(SIM) == {}


def test_everything_is_in_the_directory_of_the_run_and_nothing_is_sent() -> None:
    assert variables(tracked(*TRACKERS)) == {
        "TENSORBOARD_DIR": "/runs/one/tensorboard",
        "WANDB_DIR": "/runs/one",
        "WANDB_MODE": "offline",
        "SWANLAB_LOG_DIR": "/runs/one/swanlog",
        "SWANLAB_MODE": "offline",
        "MLFLOW_TRACKING_URI": "file:///runs/one/mlruns",
        "MLFLOW_ALLOW_FILE_STORE": "true",
    }
    online = variables(tracked(*TRACKERS, online=True))
    assert (online["WANDB_MODE"], online["SWANLAB_MODE"]) == ("online", "cloud") and "MLFLOW_TRACKING_URI" not in online


def test_an_unknown_tracker_and_one_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "run.toml"
    file.write_text(
        (REPO / "configs" / "sim.toml").read_text().replace("seed = 1", 'seed = 1\ntrackers = ["wandbb"]', 1)
    )
    with pytest.raises(ConfigError, match=r"trackers is 'wandbb'; expected one of tensorboard, .*did you mean 'wandb'"):
        load(file)
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: None)  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="run: pip install wandb mlflow, or remove it"):
        trackers.require_trackers(tracked("wandb", "mlflow"), {})


def test_an_online_tracker_needs_its_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: name)  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="trackers_online, and swanlab has no SWANLAB_API_KEY; set that variable"):
        trackers.require_trackers(tracked("swanlab", online=True), {})
    trackers.require_trackers(tracked("swanlab", online=True), {"SWANLAB_API_KEY": "abc"})
    trackers.require_trackers(tracked("swanlab"), {})


def test_rays_own_processes_get_no_tokens() -> None:
    derived = derive_run(tracked("wandb"), paths=PATHS).environment
    inherited = {"WANDB_API_KEY": "abc", "MLFLOW_TRACKING_PASSWORD": "def", "HOME": "/root"}
    assert full_environment(derived, inherited).items() >= inherited.items()
    others = full_environment(derived, inherited, for_trainer=False)
    assert not {"abc", "def"} & set(others.values()) and others["HOME"] == "/root"


def test_what_is_told_of_a_run_is_scrubbed_of_tokens() -> None:
    secrets = trackers.secrets_of(SIM, {"WANDB_API_KEY": "abcdefgh", "HOME": "/root"})
    assert secrets == {"WANDB_API_KEY": "abcdefgh"}


TRACK = """
import json, sys, torch
from verl.utils.tracking import Tracking
tracking = Tracking("project", "run", json.loads(sys.argv[1]), config={"trainer": {}})
for step in (1, 2):
    tracking.log({"actor/loss": torch.tensor(0.5 * step), "response_length/mean": 7 * step}, step)
"""


@pytest.mark.slow
def test_tensorboard_events_of_verls_own_tracking_are_read_back(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    paths = RunPaths(tmp_path, "id", tmp_path / "tmp")
    environment = {**os.environ, **derive_run(tracked("tensorboard"), paths=paths).environment}
    environment |= {"TORCH_DEVICE_BACKEND_AUTOLOAD": "0", "TMPDIR": str(tmp_path), "VERL_USE_EXTERNAL_MODULES": ""}
    command = [sys.executable, "-c", TRACK, json.dumps(["console", "tensorboard"])]
    subprocess.run(command, env=environment, cwd=tmp_path, check=True, capture_output=True, timeout=600)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("actor/loss")] == [(1, 0.5), (2, 1.0)]
    assert [(event.step, event.value) for event in events.Scalars("response_length/mean")] == [(1, 7.0), (2, 14.0)]
