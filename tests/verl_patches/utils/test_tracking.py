# SPDX-License-Identifier: Apache-2.0
"""The metrics file takes every scalar and can be followed while the run goes on."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from verl.utils import tracking
from verl.utils.tracking import FileLogger


@pytest.fixture
def logger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileLogger]:
    monkeypatch.setenv("VERL_FILE_LOGGER_PATH", str(tmp_path / "metrics.jsonl"))
    logger = FileLogger("project", "experiment")
    yield logger
    logger.finish()


@pytest.mark.proves("verl_patches.utils.tracking:log")
def test_tensors_and_numpy_values_are_written_at_once(logger: FileLogger) -> None:
    data = {
        "corr": torch.tensor(0.5),
        "bf16": torch.tensor(2.0, dtype=torch.bfloat16, requires_grad=True),
        "mean": np.float32(1.5),
        "turns": np.array([1, 2]),
        "loss": 0.25,
        "name": "run",
    }
    logger.log(data, step=3)
    line = json.loads(Path(logger.filepath).read_text())
    assert line == {
        "step": 3,
        "data": {"corr": 0.5, "bf16": 2.0, "mean": 1.5, "turns": [1, 2], "loss": 0.25, "name": "run"},
    }


@pytest.mark.proves("verl_patches.utils.tracking:tensorboard_log")
def test_events_of_a_process_that_is_killed_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child writes two steps and goes without any farewell, as one does that is killed."""
    monkeypatch.setenv("TENSORBOARD_DIR", str(tmp_path))
    child = os.fork()
    if child == 0:
        try:
            adapter = tracking._TensorboardAdapter("project", "experiment")
            for step in (1, 2):
                adapter.log({"loss": 1.0 / step, "corr": torch.tensor(0.5)}, step)
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(1, 1.0), (2, 0.5)]


@pytest.mark.proves("verl_patches.utils.tracking:__init__")
def test_a_run_that_goes_on_appends(logger: FileLogger) -> None:
    logger.log({"loss": 0.5}, step=1)
    resumed = FileLogger("project", "experiment")
    resumed.log({"loss": 0.25}, step=2)
    resumed.finish()
    lines = [json.loads(line) for line in Path(logger.filepath).read_text().splitlines()]
    assert lines == [{"step": 1, "data": {"loss": 0.5}}, {"step": 2, "data": {"loss": 0.25}}]
