# SPDX-License-Identifier: Apache-2.0
"""Runs whose weights go to the rollout directly: the same run as with verl's own sync, and one whose sync is disturbed.

Real verl, vLLM and Megatron-core on the simulated NPU.
"""

from __future__ import annotations

import json
import re
import signal
import time
from pathlib import Path

import psutil
import pytest

from recipe.recorder import EVENTS
from recipe.report.metrics import read_steps, unequal_metrics
from tests.end_to_end.test_run import check_nothing_left, first_step_done, launched, run_file, until, workers

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


def stock(runs: Path, config: str) -> Path:
    file = run_file(runs, config)
    text, found = re.subn(r"(?m)^\[rollout\].*$", r"\g<0>\ndirect_sync = false", file.read_text(encoding="utf-8"))
    assert found == 1
    file.write_text(text, encoding="utf-8")
    return file


def test_the_metrics_are_those_of_verls_own_sync_to_the_last_digit(runs: Path) -> None:
    for name in ("stock", "direct"):
        file = (run_file if name == "direct" else stock)(runs, "sim_4die.toml")
        with launched(runs, file, name, steps=3) as launcher:
            output, error = launcher.communicate(timeout=600)
        assert launcher.returncode == 0, error + output
    theirs, ours = (read_steps(runs / name / "metrics.jsonl") for name in ("stock", "direct"))
    assert len(theirs) == 4 and unequal_metrics(theirs, ours) == []
    text = (runs / "direct" / "manifest.jsonl").read_text(encoding="utf-8")
    patches = [one for one in map(json.loads, text.splitlines()) if one["patch"].endswith(":per_tensor_generator")]
    applied = {one["pid"] for one in patches if one["role"].startswith("worker") and one["status"] == "applied"}
    assert len(applied) == 4


def test_a_worker_that_is_killed_in_mid_sync_ends_the_run(runs: Path) -> None:
    with launched(runs, run_file(runs, "sim_4die.toml"), "killed", steps=200) as launcher:
        run_dir = runs / "killed"
        until(lambda: first_step_done(run_dir), launcher)
        one, *others = workers(run_dir)
        end = time.monotonic() + 240
        while not caught_in_sync(run_dir, one, others):
            assert launcher.poll() is None and time.monotonic() < end, "never caught while others waited for it"
        one.kill()
        _, error = launcher.communicate(timeout=120)
    assert launcher.returncode == 1
    assert error.count("\n") == 1 and error.startswith("error: after step "), error
    check_nothing_left(run_dir)


def caught_in_sync(run_dir: Path, one: psutil.Process, others: list[psutil.Process]) -> bool:
    """Stop a worker as soon as its sync begins. True: the others are in theirs and do not come to its end without it;
    else it goes on."""
    syncs = count(run_dir, one, "weights_in")
    while one.is_running() and count(run_dir, one, "weights_in") == syncs:
        time.sleep(0.001)
    one.send_signal(signal.SIGSTOP)
    time.sleep(3)
    open_syncs = [count(run_dir, other, "weights_in") - count(run_dir, other, "weights_synced") for other in others]
    if any(open_syncs):
        return True
    one.send_signal(signal.SIGCONT)
    return False


def count(run_dir: Path, process: psutil.Process, phase: str) -> int:
    """How often a worker came to the end of a phase."""
    text = (run_dir / EVENTS / f"{process.pid}.jsonl").read_text(encoding="utf-8")
    return text.count(f'"phase": "{phase}"')
