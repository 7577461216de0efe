# SPDX-License-Identifier: Apache-2.0
"""A run that was killed and resumed has the metrics of one that was not, to the last digit.

Real verl, vLLM and Megatron-core on the simulated NPU. The learning rate is being warmed up, the second epoch has
begun, answers are graded by processes, and steps before and after the resume are validated.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from recipe.report.metrics import Step, read_steps, unequal_metrics
from tests.end_to_end.test_run import REPO, launched, processes_of, run_id, until

pytestmark = pytest.mark.slow
STEPS, SAVED, SEEN = 5, 3, 4
CHANGES = {
    "[run]": f"[run]\nsave_every = {SAVED}",
    "validate_every = 10": "validate_every = 2",
    'kind = "tiny" ': 'kind = "tiny"\nwarm_start_steps = 40 ',
    "validation_samples = 8": "validation_samples = 1",
    "workers = 0 ": "workers = 1 ",
    # As many answers as in the quick start, but an epoch has two steps.
    "prompts_per_step = 16": "prompts_per_step = 64\nwarmup_steps = 4",
    "samples_per_prompt = 16": "samples_per_prompt = 4",
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def run_file(runs: Path) -> Path:
    text = (REPO / "configs" / "sim.toml").read_text(encoding="utf-8")
    for old, new in CHANGES.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    path = runs / "sim.toml"
    path.write_text(text, encoding="utf-8")
    return path


def finish(runs: Path, run_file: Path, name: str) -> str:
    with launched(runs, run_file, name, STEPS) as launcher:
        output, error = launcher.communicate(timeout=600)
    assert launcher.returncode == 0, error + output
    return output


def kill_after(step: int, runs: Path, run_file: Path, name: str) -> None:
    """Start the run and kill its driver once the metrics of `step` are there."""
    run_dir = runs / name
    with launched(runs, run_file, name, STEPS) as launcher:
        until(lambda: any(one.number == step for one in read_steps(run_dir / "metrics.jsonl")), launcher)
        (driver,) = (one for one in processes_of(run_id(run_dir)) if "recipe.launch.driver" in one.cmdline())
        driver.kill()
        launcher.communicate(timeout=120)
    assert launcher.returncode == 1


def numbers(steps: list[Step]) -> list[int]:
    return [step.number for step in steps]


def test_a_killed_and_resumed_run_is_the_same_run(runs: Path, run_file: Path) -> None:
    finish(runs, run_file, "whole")
    whole = read_steps(runs / "whole" / "metrics.jsonl")
    assert numbers(whole) == list(range(STEPS + 1))
    assert [step.values["training/epoch"] for step in whole[1:]] == [0, 0, 1, 1, 2]
    assert len({step.values["actor/lr"] for step in whole[1:]}) == STEPS

    kill_after(SEEN, runs, run_file, "killed")
    before = read_steps(runs / "killed" / "metrics.jsonl")
    assert unequal_metrics(whole[: SEEN + 1], before) == [], "two runs with one seed are the same run"

    output = finish(runs, run_file, "killed")
    assert f"from its checkpoint of step {SAVED}\n" in output
    resumed = read_steps(runs / "killed" / "metrics.jsonl")
    assert unequal_metrics(whole, resumed) == []
    warnings = [line for line in driver_log(runs / "killed") if "random states" in line]
    assert warnings == []
    answers = [json.loads((runs / name / "summary.json").read_text(encoding="utf-8")) for name in ("whole", "killed")]
    assert answers[0]["status"] == answers[1]["status"] == "finished"


def driver_log(run_dir: Path) -> list[str]:
    return (run_dir / "logs" / "driver.log").read_text(encoding="utf-8", errors="replace").splitlines()
