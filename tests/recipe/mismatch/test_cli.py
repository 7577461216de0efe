# SPDX-License-Identifier: Apache-2.0
"""The command on runs that are recorded, and its one line for what it cannot do."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from recipe.__main__ import main
from recipe.mismatch import rerun
from recipe.mismatch.rerun import RERUN, records_of
from recipe.runfile.config import load
from recipe.runfile.paths import REPO
from recipe.runfile.schema import RunConfig
from tests.recipe.mismatch.made_up import PROMPT, Step

FLIP = {"flips": [((1, 2), 1, PROMPT)], "moved": {((1, 2), 1): -0.5}}


def metrics(path: Path, steps: range, **changed: float) -> None:
    lines = [
        {"step": step, "data": {"timing_s/step": 1.0 + step, "actor/entropy": 0.5 / (step + 1), **changed}}
        for step in steps
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


@pytest.fixture
def config() -> RunConfig:
    return load(REPO / "configs" / "sim.toml").with_run(seed=4)


@pytest.fixture
def run_dir(tmp_path: Path, config: RunConfig) -> Path:
    """A run of 4 steps, of which step 2 is recorded."""
    directory = tmp_path / "sim"
    directory.mkdir()
    (directory / "command.json").write_text(json.dumps({"argv": [], "config": config.described()}), encoding="utf-8")
    metrics(directory / "metrics.jsonl", range(1, 5))
    Step(**FLIP).write(records_of(directory, 2))
    return directory


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch, run_dir: Path) -> list[Any]:
    """The reruns that were launched, each of which records what was asked for."""
    calls: list[Any] = []

    def launch(given: RunConfig, source: Path, cluster: None = None, request: Any = None) -> Path:
        calls.append((given, request))
        directory = run_dir / "mismatch" / RERUN
        directory.mkdir(exist_ok=True)
        metrics(directory / "metrics.jsonl", range(1, given.run.steps + 1))
        for step in range(1, given.run.steps + 1):
            Step(**FLIP).write(directory / "records" / f"step_{step}")
        print("progress")
        return directory

    monkeypatch.setattr("recipe.launch.run.launch", launch)
    monkeypatch.setattr("recipe.stopping.raise_on_stop_signals", lambda: None)
    return calls


def told(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = main(["mismatch", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_a_recorded_step_is_compared_at_once(
    run_dir: Path, launched: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = told(capsys, run_dir, "--step", 2)
    assert (code, err) == (0, "") and not launched
    assert out.startswith("step 2: ") and "cause: routing flips" in out.splitlines()[0]
    code, out, _ = told(capsys, run_dir, "--step", 2, "--json", "--tokens", 1)
    (figures,) = json.loads(out)
    assert (
        figures["cause"] == "routing flips" and len(figures["worst"]) == 1 and figures["worst"][0]["origin"] == [1, 2]
    )


@pytest.mark.parametrize("before", [None, "1"])
def test_the_environment_stays_as_it_was(before: str | None, run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one command leaves there, a device that the same process opens later would miss."""
    monkeypatch.delenv("TORCH_DEVICE_BACKEND_AUTOLOAD", raising=False)
    if before is not None:
        monkeypatch.setenv("TORCH_DEVICE_BACKEND_AUTOLOAD", before)
    assert main(["mismatch", str(run_dir), "--step", "2"]) == 0
    assert os.environ.get("TORCH_DEVICE_BACKEND_AUTOLOAD") == before


def test_what_is_not_recorded_is_run_again_to_the_last_step_wanted(
    run_dir: Path, config: RunConfig, launched: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = told(capsys, run_dir, "--steps", "1-3")
    assert code == 0 and err == "progress\n" and len(out.splitlines()) == 4
    ((given, request),) = launched
    assert given.run.steps == 3 and given.run.seed == 4 and given.run.output_dir == str(run_dir / "mismatch")
    assert given.environment == {"RECIPE_MISMATCH_STEPS": "1,3"} and request.from_step is None
    assert (given.train, given.rollout, given.actor, given.data) == (
        config.train, config.rollout, config.actor, config.data,
    )  # fmt: skip
    assert told(capsys, run_dir, "--steps", "1-3")[1] == out and len(launched) == 1
    assert told(capsys, run_dir, "--step", 2, "--again")[0] == 0 and len(launched) == 2


def test_the_rerun_goes_on_from_the_last_checkpoint_before_the_step(
    run_dir: Path, launched: list[Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = run_dir / "checkpoints" / "global_step_2"
    saved.mkdir(parents=True)
    asked = []

    def last_whole(directory: Path, step: int) -> Path:
        asked.append((directory, step))
        return saved

    monkeypatch.setattr(rerun, "last_whole", last_whole)
    assert told(capsys, run_dir, "--step", 3)[0] == 0
    assert asked == [(run_dir / "checkpoints", 2)] and launched[0][1].from_step == 2
    link = run_dir / "mismatch" / RERUN / "checkpoints" / "global_step_2"
    assert link.is_symlink() and link.resolve() == saved
    assert told(capsys, run_dir, "--step", 3, "--again")[0] == 0 and saved.is_dir()


def test_a_rerun_that_is_another_run_is_not_compared(
    run_dir: Path, launched: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    metrics(run_dir / "metrics.jsonl", range(1, 5), **{"actor/entropy": 0.7})
    code, out, err = told(capsys, run_dir, "--step", 3)
    assert code == 1 and out == "" and "step 3" in err and "actor/entropy = 0.7, and has 0.125" in err
    assert not records_of(run_dir, 3).exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--step", "9"), "has steps 1-4; step 9 is not among them"),
        (("--steps", "2-6"), "has steps 1-4; step 5-6 is not among them"),
        (("--step", "0"), "'0' names no steps"),
        (("--step", "1-2"), "--step 1-2: expected one step; --steps takes several"),
        (("--step", "2", "--tokens", "-1"), "--tokens -1: expected a number that is not negative"),
    ],
)
def test_a_mistake_is_one_line(
    run_dir: Path, launched: list[Any], arguments: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = told(capsys, run_dir, *arguments)
    assert (code, out) == (2, "") and said in err and err.count("\n") == 1 and not launched


def test_no_run_and_a_run_without_steps(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = told(capsys, run_dir / "no", "--step", 1)
    assert code == 2 and err.endswith("holds no command.json; give the directory of a run, runs/NAME\n")
    assert not (run_dir / "no").exists()
    (run_dir / "metrics.jsonl").unlink()
    assert "has no step yet" in told(capsys, run_dir, "--step", 1)[2]
    (run_dir / "command.json").write_text("[]", encoding="utf-8")
    metrics(run_dir / "metrics.jsonl", range(1, 5))
    assert "does not tell with which settings" in told(capsys, run_dir, "--step", 1)[2]


@pytest.mark.parametrize(
    ("section", "key", "value", "said"),
    [
        ("rollout", "graph_mode", True, "compiled graphs run no hooks"),
    ],
)
def test_a_run_with_nothing_to_compare_is_refused(
    run_dir: Path, launched: list[Any], section: str, key: str, value: Any, said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    command = json.loads((run_dir / "command.json").read_text(encoding="utf-8"))
    command["config"][section][key] = value
    (run_dir / "command.json").write_text(json.dumps(command), encoding="utf-8")
    code, _, err = told(capsys, run_dir, "--step", 1)
    assert code == 2 and said in err and not launched


def test_a_hidden_value_is_left_to_the_caller_s_environment(
    run_dir: Path, launched: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    command = json.loads((run_dir / "command.json").read_text(encoding="utf-8"))
    command["config"]["environment"] = {"WANDB_API_KEY": "(hidden)", "OTHER": "1"}
    (run_dir / "command.json").write_text(json.dumps(command), encoding="utf-8")
    assert told(capsys, run_dir, "--step", 1)[0] == 0
    assert launched[0][0].environment == {"OTHER": "1", "RECIPE_MISMATCH_STEPS": "1"}
