# SPDX-License-Identifier: Apache-2.0
"""`python -m recipe mismatch` on a real run: what it records is that run, token by token, in both engines.

The run has a checkpoint, from which the rerun goes on. The model is barely warmed up, so that its answers are long and
its routers undecided.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from recipe.mismatch.rerun import records_of
from recipe.report.metrics import KL_KEYS, PEARSON, read_steps
from tests.end_to_end.test_run import REPO, launch, run_file

pytestmark = pytest.mark.slow
STEPS, SAVED = 4, 2


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("runs")
    path = run_file(runs, "sim.toml")
    path.write_text(path.read_text(encoding="utf-8").replace("[run]", f"[run]\nsave_every = {SAVED}"), encoding="utf-8")
    launcher = launch(runs, path, "run", STEPS)
    output, error = launcher.communicate(timeout=600)
    assert launcher.returncode == 0, error + output
    return runs / "run"


def mismatch(run_dir: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "recipe", "mismatch", str(run_dir), *options],
        cwd=REPO, env={**os.environ, "RECIPE_RUNS": str(run_dir.parent)}, capture_output=True, text=True, timeout=600,
        check=False,
    )  # fmt: skip


def files(directory: Path) -> dict[str, tuple[int, int]]:
    found = ((path, path.stat()) for path in sorted(directory.rglob("*")) if path.is_file())
    return {str(path): (state.st_size, state.st_mtime_ns) for path, state in found}


def test_what_is_recorded_is_the_run(run_dir: Path) -> None:
    before = files(run_dir / "checkpoints")
    done = mismatch(run_dir, "--steps", f"{SAVED + 1}-{STEPS}", "--json")
    assert done.returncode == 0, done.stderr
    assert f"from its checkpoint of step {SAVED}\n" in done.stderr
    assert files(run_dir / "checkpoints") == before
    logged = {step.number: step for step in read_steps(run_dir / "metrics.jsonl")}
    steps: list[dict[str, Any]] = json.loads(done.stdout)
    assert [step["step"] for step in steps] == [SAVED + 1, STEPS]
    for step in steps:
        metrics = logged[step["step"]]
        assert step["pearson"] == pytest.approx(metrics.values[PEARSON], abs=1e-5)
        assert step["kl"] == pytest.approx(metrics.get(*KL_KEYS), abs=1e-6)
        assert step["not_replayed"] == 0, "every router took the experts that it was given"
        assert [layer["flips"] is None for layer in step["layers"]] == [True, False, False, False]
        # Rounding in bfloat16, 8 bits: not the same bits, and not another model.
        assert all(1e-4 < layer["hidden_rest"][0] < 0.02 for layer in step["layers"])
        for layer in step["layers"][1:]:
            assert not layer["flips"] or layer["margin_of_flips"] < layer["margin"] / 5, "flips are near ties"
        assert step["beyond_guard"] == []

    records = files(records_of(run_dir, STEPS))
    page = mismatch(run_dir, "--step", str(STEPS))
    assert page.returncode == 0 and page.stderr == "" and page.stdout.startswith(f"step {STEPS}: ")
    assert files(records_of(run_dir, STEPS)) == records


def test_a_step_that_was_not_done_is_one_line(run_dir: Path) -> None:
    done = mismatch(run_dir, "--step", str(STEPS + 1))
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == f"error: {run_dir} has steps 1-{STEPS}; step {STEPS + 1} is not among them\n"
