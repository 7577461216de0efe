# SPDX-License-Identifier: Apache-2.0
"""A worker's phases under verl's profiler: marked in what it records, and done once."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from verl.utils.profiler import DistProfiler, ProfilerConfig
from verl.utils.profiler.config import NPUToolConfig


class Worker:
    def __init__(self, profiler: Any) -> None:
        self.profiler, self.done = profiler, 0

    @DistProfiler.annotate(color="red")
    def update_actor(self, fails: bool = False) -> int:
        self.done += 1
        torch.ones(2, device="npu").add_(1)
        if fails:
            raise ValueError("out of patience")
        return self.done


def a_profiler(directory: Path, **changes: Any) -> DistProfiler:
    config = ProfilerConfig(tool="npu", enable=True, ranks=[0], save_path=str(directory), tool_config={})
    return DistProfiler(0, config, NPUToolConfig(contents=["npu", "cpu"], **changes))


@pytest.mark.proves("verl_patches.utils.profiler.profile:annotate")
def test_a_phase_that_fails_is_not_done_again(tmp_path: Path) -> None:
    worker = Worker(a_profiler(tmp_path))
    worker.profiler.start(role="e2e", profile_step=3)
    with pytest.raises(ValueError, match="out of patience"):
        worker.update_actor(fails=True)
    worker.profiler.stop()
    assert worker.done == 1


@pytest.mark.parametrize("discrete", [False, True])
def test_phases_of_a_recorded_step_are_marks_around_its_operators(tmp_path: Path, discrete: bool) -> None:
    worker = Worker(a_profiler(tmp_path, discrete=discrete))
    assert worker.update_actor() == 1
    worker.profiler.start(role="e2e", profile_step=3)
    assert worker.update_actor() == 2
    worker.profiler.stop()
    assert worker.update_actor() == 3
    (file,) = tmp_path.glob("**/trace_view.json")
    assert file.relative_to(tmp_path).parts[:2] == ("3", "e2e") or discrete
    found = json.loads(file.read_text())["traceEvents"]
    (phase,) = [event for event in found if event["name"] == "update_actor"]
    (operator,) = [event for event in found if event["name"] == "aten::add_"]
    assert phase["ts"] <= operator["ts"] <= phase["ts"] + phase["dur"]


@pytest.mark.parametrize("profiler", [None, SimpleNamespace(_impl=SimpleNamespace()), DistProfiler(0)])
def test_without_a_profiler_that_marks_a_phase_just_runs(profiler: Any) -> None:
    assert Worker(profiler).update_actor() == 1
