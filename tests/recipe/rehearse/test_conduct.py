# SPDX-License-Identifier: Apache-2.0
"""The processes of stages: what they leave is kept, and none of them outlives the rehearsal."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from recipe.rehearse.conduct import rehearse_stages, seconds_of_stages
from recipe.rehearse.subject import Rehearsed
from recipe.runfile.errors import LaunchError
from recipe.runfile.paths import REPO
from tests.recipe.rehearse.made_up import a_run
from tests.recipe.rehearse.stand_in_stage import DIE, END_ALL, FAIL, SUCCEED, WAIT

COMMAND = (sys.executable, "-m", "tests.recipe.rehearse.stand_in_stage")


def seeded(seed: int, stages: tuple[int, ...] = (0, 1, 2)) -> Rehearsed:
    run = a_run(stages=stages)
    config = dataclasses.replace(run.config, run=dataclasses.replace(run.config.run, seed=seed))
    return dataclasses.replace(run, planned=dataclasses.replace(run.planned, config=config))


def processes(directory: Path) -> list[int]:
    """Those that have run, by their stage."""
    return [int(text) for file in sorted(directory.glob("ran.*")) if (text := file.read_text())]


@pytest.mark.parametrize("at_once", [1, 2])
def test_every_stage_is_rehearsed_and_said(tmp_path: Path, at_once: int) -> None:
    said: list[str] = []
    results = rehearse_stages(seeded(SUCCEED), tmp_path, said.append, at_once, COMMAND)
    assert [(one.stage, one.rank) for one in results] == [(0, 0), (1, 32), (2, 64)]
    assert results[1].phases["ref"].contents == {"activations": 2**31}
    assert "stage 1: die 32 of 256" in said
    assert "stage 1: reference: at most 2.0 GiB, 12,345 operators in 2.5 s" in said
    assert "stage 1: reference goes on, 1,500 operators a second, 1.0 GiB of this machine's memory" in said


def test_what_is_there_is_not_done_again_unless_it_is_of_something_else(tmp_path: Path) -> None:
    rehearse_stages(seeded(SUCCEED), tmp_path, lambda text: None, 1, COMMAND)
    first = processes(tmp_path)
    (tmp_path / "stage_1.json").write_text('{"key": "of another"}')
    (tmp_path / "stage_2.json").write_text("broken")
    said: list[str] = []
    results = rehearse_stages(seeded(SUCCEED), tmp_path, said.append, 1, COMMAND)
    assert len(results) == 3 and any(text.startswith("stage 0: as counted before") for text in said)
    # A stage takes 3 s wherever it is from; and descriptions, 0.5 s each, of the first, a middle, and the last one.
    assert seconds_of_stages(seeded(SUCCEED), tmp_path, results) == 3 * 3.0 + 3 * 0.5
    again = processes(tmp_path)
    assert [old == new for old, new in zip(first, again, strict=True)] == [True, False, False]


@pytest.mark.parametrize(("seed", "told"), [(FAIL, "reference: HollowRead: somebody reads"), (DIE, "the last line")])
def test_a_process_that_fails_is_one_line_with_its_log(tmp_path: Path, seed: int, told: str) -> None:
    with pytest.raises(LaunchError) as caught:
        rehearse_stages(seeded(seed), tmp_path, lambda text: None, 1, COMMAND)
    assert str(caught.value) == f"stage 0: {told}; {tmp_path / 'stage_0.log'}"


def test_without_the_process_that_forks_there_is_an_error_with_its_log(tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match=r"the process of the stages has ended: no such module; .*stages.log"):
        rehearse_stages(seeded(END_ALL), tmp_path, lambda text: None, 1, COMMAND)


STOPPED = f"""
import sys
from pathlib import Path
from recipe.stopping import raise_on_stop_signals
from recipe.rehearse.conduct import rehearse_stages
from tests.recipe.rehearse.test_conduct import COMMAND, seeded
raise_on_stop_signals()
rehearse_stages(seeded({WAIT}), Path(sys.argv[1]), print, 2, COMMAND)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_process_outlives_the_rehearsal(tmp_path: Path, number: int) -> None:
    command = [sys.executable, "-c", STOPPED, str(tmp_path)]
    end = time.monotonic() + 60
    with subprocess.Popen(command, cwd=REPO, stderr=subprocess.DEVNULL) as parent:
        try:
            while len(processes(tmp_path)) < 2 and time.monotonic() < end:
                time.sleep(0.1)
            children = processes(tmp_path)
            assert len(children) == 2
            os.kill(parent.pid, number)
            parent.wait(20)
        finally:
            parent.kill()
    while any(map(psutil.pid_exists, children)) and time.monotonic() < end:
        time.sleep(0.1)
    assert not any(map(psutil.pid_exists, children))
