# SPDX-License-Identifier: Apache-2.0
"""What disturbs runs, and what counts what came of it: `benchmarks/faults.py` and its parts."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import fault_kinds, faults

REPO = Path(__file__).resolve().parents[2]


@given(st.integers(1, 80), st.integers(0, 2**32), st.booleans())
def test_every_fault_comes_once_before_one_comes_again(count: int, seed: int, with_disk: bool) -> None:
    trials = fault_kinds.draw(count, seed, 5, with_disk)
    assert trials == fault_kinds.draw(count, seed, 5, with_disk) and len(trials) == count
    times = Counter(trial.fault.name for trial in trials)
    kinds = [fault.name for fault in fault_kinds.faults(with_disk)]
    assert max(times.values()) - min(times[name] for name in kinds) <= 1
    assert all(trial.moment in trial.fault.moments and 0 <= trial.after_step < 4 for trial in trials)


@pytest.mark.parametrize("what", [*fault_kinds.DAMAGES, "latest emptied", "metrics torn"])
def test_damage_changes_one_file_of_the_newest_checkpoint_or_what_it_names(tmp_path: Path, what: str) -> None:
    for step in (1, 2, 10):
        (tmp_path / "checkpoints" / f"global_step_{step}").mkdir(parents=True)
        for name in ("weights", "data.pt"):
            (tmp_path / "checkpoints" / f"global_step_{step}" / name).write_bytes(b"12345678")
    (tmp_path / "checkpoints" / "latest_checkpointed_iteration.txt").write_text("10")
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2}\n')
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    fault_kinds.damage(what, tmp_path, random.Random(1))
    after = {path: path.read_bytes() if path.is_file() else None for path in before}
    (changed,) = [path for path in before if before[path] != after[path]]
    if what in fault_kinds.DAMAGES:
        assert changed.parent.name == "global_step_10"
    assert changed.name == {"metrics torn": "metrics.jsonl", "latest emptied": "latest_checkpointed_iteration.txt"}.get(
        what, changed.name
    )


def test_damage_without_a_checkpoint_is_said(tmp_path: Path) -> None:
    with pytest.raises(LookupError, match="no checkpoint"):
        fault_kinds.damage("zeroed", tmp_path, random.Random(1))


def test_what_is_wrong_with_a_run_is_counted(tmp_path: Path) -> None:
    """A step twice, one missing, a figure that differs, a result that cannot be read."""
    reference, run_dir = tmp_path / "reference.jsonl", tmp_path / "run"
    run_dir.mkdir()
    lines = [json.dumps({"step": step, "data": {"critic/score/mean": 0.5, "timing_s/step": step}}) for step in range(6)]
    reference.write_text("\n".join(lines) + "\n")
    other = lines[3].replace("0.5", "0.5000001").replace('"timing_s/step": 3', '"timing_s/step": 9')
    (run_dir / "metrics.jsonl").write_text("\n".join([*lines[:3], other, lines[2], lines[5]]) + "\n")
    (run_dir / "result.json").write_text("")
    outcome = faults.TrialOutcome("a trial")
    faults.check_metrics(run_dir, faults.UndisturbedRun(reference, 0.0, 0.0), outcome)
    faults.check_result(run_dir, outcome)
    assert outcome.counts["steps_twice"] == 2, outcome.notes
    assert outcome.counts["unequal_metrics"] >= 1, outcome.notes
    assert outcome.counts["wrong_exit"] == 1, outcome.notes
    assert json.loads(json.dumps(outcome.row()))["counts"] == outcome.counts


def test_an_undisturbed_run_counts_nothing(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    lines = [json.dumps({"step": step, "data": {"critic/score/mean": 0.5, "timing_s/step": 1}}) for step in range(6)]
    (tmp_path / "reference.jsonl").write_text("\n".join(lines) + "\n")
    (tmp_path / "run" / "metrics.jsonl").write_text("\n".join(lines).replace('step": 1}', 'step": 2}') + "\n")
    (tmp_path / "run" / "result.json").write_text('{"status": "finished"}')
    outcome = faults.TrialOutcome("a trial")
    faults.check_metrics(tmp_path / "run", faults.UndisturbedRun(tmp_path / "reference.jsonl", 0.0, 0.0), outcome)
    faults.check_result(tmp_path / "run", outcome)
    assert not outcome.counts, outcome.notes


def test_a_run_that_ends_before_its_fault_is_counted_with_its_last_line(tmp_path: Path) -> None:
    bench = faults.Bench(tmp_path, 1, None)
    bench.printed("run").write_text("[0:00] run\nerror: set-up took too long\n", encoding="utf-8")
    outcome = faults.TrialOutcome("a trial")
    (trial,) = fault_kinds.draw(1, 1, 5, False)
    with subprocess.Popen([sys.executable, "-c", "raise SystemExit(1)"]) as launcher:
        faults.place(
            trial, bench, tmp_path / "run", launcher, faults.UndisturbedRun(tmp_path / "none", 0.1, 0.1), outcome
        )
    assert outcome.counts == {"wrong_exit": 1}
    assert outcome.notes == ["wrong_exit: 1 before the fault: error: set-up took too long"]


@pytest.mark.slow
def test_six_disturbed_runs_come_through() -> None:
    done = subprocess.run(
        [sys.executable, str(REPO / "benchmarks" / "faults.py"), "--trials", "6", "--json"],
        capture_output=True, text=True, timeout=2400, check=False, cwd=REPO,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout
    counted = json.loads(done.stdout)
    assert counted["trials"] == 6 and not any(counted[name] for name in faults.COUNTED), counted
