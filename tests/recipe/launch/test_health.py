# SPDX-License-Identifier: Apache-2.0
"""The watch while a run goes, with a stand-in for verl's driver: its warnings, its marks, and the end it brings."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from recipe.__main__ import main
from recipe.launch import drive
from recipe.launch.health import Health, vocabulary_of
from recipe.launch.processes import end_all, marked
from recipe.report.marks import read_marks
from recipe.report.metrics import Step
from recipe.runfile import derive
from recipe.runfile.config import load
from recipe.runfile.derive import Inputs
from recipe.runfile.paths import REPO, RunPaths
from recipe.runfile.schema import RunConfig
from tests.recipe.watch.recorded import changed, going_on, recorded

SIM = load(REPO / "configs" / "sim.toml")
# Writes the lines of a file as a run's metrics, each after its checkpoint, and then waits, or ends if it is told to.
STAND_IN = """
import json, os, sys, time
from pathlib import Path

from recipe.checkpoints import Manifest, list_files, sum_files, write_manifest

given = dict(one.split("=", 1) for one in sys.argv[1:] if "=" in one)
root = Path(given["trainer.default_local_dir"].strip("'\\""))
for line in Path(os.environ["STAND_IN_LINES"]).read_text().splitlines():
    step = json.loads(line)["step"]
    if step and step % max(1, int(given["trainer.save_freq"])) == 0:
        weights = root / f"global_step_{step}" / "actor" / "dist_ckpt"
        weights.mkdir(parents=True)
        for path in (weights / ".metadata", weights / "metadata.json", root / f"global_step_{step}" / "data.pt"):
            path.touch()
        saved = root / f"global_step_{step}"
        write_manifest(saved, Manifest(step, sum_files(saved, list_files(saved), threads=1)))
    with open(os.environ["VERL_FILE_LOGGER_PATH"], "a") as file:
        file.write(line + "\\n")
    time.sleep(0.4)
time.sleep(float(os.environ["STAND_IN_WAIT"]))
"""


@pytest.fixture
def launched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """`launched(lines, wait)` launches six steps of the quick start, saved one by one, whose driver writes these."""
    driver = tmp_path / "driver.py"
    driver.write_text(STAND_IN, encoding="utf-8")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"vocab_size": 640}', encoding="utf-8")
    text = (REPO / "configs" / "sim.toml").read_text(encoding="utf-8")
    file = tmp_path / "sim.toml"
    file.write_text(text.replace("[run]", "[run]\nsave_every = 1").replace("steps = 50", "steps = 6"), encoding="utf-8")
    inputs = Inputs(
        model=tmp_path / "model", checkpoint=Path("/none"), train=Path("/none"), validation=Path("/none"),
        prompt_tokens=16,
    )  # fmt: skip
    monkeypatch.setattr(derive, "DRIVER", [str(driver)])
    monkeypatch.setattr(drive, "prepare", lambda config, say, log: inputs)
    monkeypatch.setenv("RECIPE_RUNS", str(tmp_path / "runs"))

    def launch(lines: list[dict[str, Any]], wait: float = 0.0) -> tuple[int, Path]:
        (tmp_path / "lines").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        monkeypatch.setenv("STAND_IN_LINES", str(tmp_path / "lines"))
        monkeypatch.setenv("STAND_IN_WAIT", str(wait))
        return main(["launch", str(file)]), tmp_path / "runs" / "sim"

    yield launch
    command = tmp_path / "runs" / "sim" / "command.json"
    if command.is_file():
        mark = json.loads(command.read_text(encoding="utf-8"))["environment"]["RECIPE_RUN_ID"]
        assert marked(mark) == [] and not end_all(mark, patience_s=0)


def test_a_stop_ends_the_run_with_its_own_exit_code_and_names_rule_figures_and_checkpoint(
    launched: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = changed(recorded("healthy")[:7], range(4, 7), actor__grad_norm=0.0)
    begun = time.monotonic()
    code, run_dir = launched(lines, wait=300)
    assert code == 3 and time.monotonic() - begun < 120
    out, error = capsys.readouterr()
    good = run_dir / "checkpoints" / "global_step_2"
    assert error == (
        "error: after step 5: the watch has stopped the run: zero_gradient: the gradient norm is 0: with a mean "
        f"reward of 0.635 (steps 4 to 5); the last good checkpoint is {good} "
        "(--from-step 2 goes on from it); docs/WATCH.md says what to do\n"
    )
    assert "warning: zero_gradient: the gradient norm is 0: with a mean reward of 0.643 (step 4)\n" in out
    assert good.is_dir()
    result = json.loads((run_dir / "result.json").read_text(encoding="utf-8"))
    assert (result["status"], result["rule"], result["last_good_checkpoint"]) == ("stopped", "zero_gradient", str(good))
    assert [(mark.step, mark.kind, mark.name) for mark in read_marks(run_dir)] == [
        (4, "warning", "zero_gradient"),
        (5, "stop", "zero_gradient"),
    ]
    summary = json.loads((run_dir / "summary.json").read_text(encoding="utf-8"))
    assert [mark["kind"] for mark in summary["marks"]] == ["warning", "stop"] and summary["status"] == "stopped"
    assert "zero_gradient" in (run_dir / "report.html").read_text(encoding="utf-8")
    # The doctor says the same of what is left.
    assert main(["doctor", str(run_dir)]) == 2
    printed = capsys.readouterr().out.splitlines()
    assert printed[1].startswith("stop at step 5: zero_gradient: ") and str(good) in printed[1]
    assert printed[-1] == f"{run_dir}: 5 steps, 13 rules: 1 stops, 1 warnings"
    assert main(["doctor", str(run_dir), "--json"]) == 2
    told = json.loads(capsys.readouterr().out)["findings"]
    assert [(mark["rule"], mark["kind"], mark["step"]) for mark in told] == [
        ("zero_gradient", "warning", 4),
        ("zero_gradient", "stop", 5),
    ]
    assert told[1]["last_good_checkpoint"] == str(good)


def test_a_stop_at_the_last_step_is_one_all_the_same(launched: Any, capsys: pytest.CaptureFixture[str]) -> None:
    lines = changed(recorded("healthy")[:7], [6], critic__score__mean=math.nan, actor__pg_loss=math.inf)
    code, run_dir = launched(lines)
    assert code == 3 and "not_finite: " in capsys.readouterr().err
    assert (run_dir / "report.html").is_file()


def test_a_healthy_run_finishes_without_a_word_of_the_watch(launched: Any, capsys: pytest.CaptureFixture[str]) -> None:
    code, run_dir = launched(recorded("healthy")[:7])
    out, error = capsys.readouterr()
    assert (code, error) == (0, "") and "warning" not in out
    assert read_marks(run_dir) == []
    assert main(["doctor", str(run_dir)]) == 0


def test_the_doctor_wants_the_directory_of_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", str(tmp_path)]) == 2
    assert str(tmp_path) in capsys.readouterr().err
    for text in ("", "[]", '{"config": 3}', '{"config": {"watch": {"odd": 1}}}'):
        (tmp_path / "command.json").write_text(text, encoding="utf-8")
        assert main(["doctor", str(tmp_path)]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and error.count("\n") == 1 and "command.json" in error
    assert main(["doctor", str(tmp_path), "--device", "npu"]) == 2
    assert "--device" in capsys.readouterr().err


def test_the_doctor_looks_at_a_run_that_has_only_its_run_file_yet(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run.toml").write_bytes((REPO / "configs" / "sim.toml").read_bytes())
    assert main(["doctor", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{tmp_path}: 0 steps, 13 rules: 0 stops, 0 warnings\n"


@pytest.fixture
def paths(tmp_path: Path) -> RunPaths:
    return RunPaths(tmp_path, "id", tmp_path / "ray")


def written(paths: RunPaths, lines: list[dict[str, Any]]) -> None:
    paths.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def step_of(line: dict[str, Any]) -> Step:
    return Step(line["step"], line["data"])


def health(paths: RunPaths, lines: list[str], config: RunConfig = SIM) -> Health:
    return Health(config, 640, paths, lines.append)


def test_a_run_that_goes_on_knows_the_steps_before_and_marks_none_of_them_again(paths: RunPaths) -> None:
    lines = changed(going_on(recorded("healthy"), 30), range(8, 31), critic__score__mean=0.01)
    written(paths, lines[:15])
    printed: list[str] = []
    watched = health(paths, printed)
    assert printed == [] and read_marks(paths.run_dir) == []
    for line in lines[15:]:
        watched.follow(step_of(line))
        if watched.stopped is not None:
            break
    # The reward's best lies in the steps before; the streak that began there goes on.
    assert watched.stopped is not None and watched.stopped.rule == "reward_drop"
    assert {mark.kind for mark in read_marks(paths.run_dir)} == {"stop"}


def test_a_mark_that_cannot_be_written_ends_nothing(paths: RunPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(run_dir: Path, mark: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("recipe.launch.health.add_mark", full)
    lines: list[str] = []
    watched = health(paths, lines)
    watched.follow(Step(1, {"actor/grad_norm": 0.0}))
    assert lines[0] == "warning: the mark of step 1 cannot be written (No space left on device)"
    assert lines[1].startswith("warning: zero_gradient: ")


@pytest.mark.parametrize(
    ("text", "size"),
    [('{"vocab_size": 640}', 640), *((odd, None) for odd in ('{"vocab_size": 1}', '{"vocab_size": "9"}', "[]", ""))],
)
def test_the_vocabulary_is_the_model_s_or_not_known(tmp_path: Path, text: str, size: int | None) -> None:
    assert vocabulary_of(tmp_path) is None
    (tmp_path / "config.json").write_text(text, encoding="utf-8")
    assert vocabulary_of(tmp_path) == size
