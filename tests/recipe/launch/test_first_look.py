# SPDX-License-Identifier: Apache-2.0
"""`recipe launch RUN.toml --check`: what a person types wrong is said in one line, before anything is installed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest

from recipe.launch.first_look import require_plain_interpreter, require_room
from recipe.launch.run import launch
from recipe.runfile.config import load
from recipe.runfile.errors import ConfigError, LaunchError

REPO = Path(__file__).resolve().parents[3]
SIM = REPO / "configs" / "sim.toml"
# Without site-packages, as in set-up's new environment; TOML is in the standard library from 3.11 on.
ALONE = [sys.executable, *(["-S"] if sys.version_info >= (3, 11) else [])]


def check(*arguments: str | Path) -> tuple[int, str]:
    done = subprocess.run(
        [*ALONE, "-m", "recipe", "launch", *map(str, arguments), "--check"],
        cwd=REPO,
        env={},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.stdout == "" and done.stderr.count("\n") <= 1, done
    return done.returncode, done.stderr


def test_a_good_run_says_nothing(tmp_path: Path) -> None:
    data = tmp_path / "problems.json"
    data.write_text(json.dumps([{"problem": "1+1", "answer": "2", "solution": ""}]), encoding="utf-8")
    assert check(SIM, "--data", data, "--steps", "1") == (0, "")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'[{"problem": "1+1", ', "record 0: not valid JSON"),
        (b"", "it is empty"),
        (b"[]", "no problem with an answer (0 records left out)"),
        (b'[{"problem": "1+1", "answer": "", "solution": ""}]', "no problem with an answer (1 records left out)"),
        (b'[{"question": "1+1", "answer": "2"}]', "field 'problem' is missing; the record has 'question', 'answer'"),
        (b'["\xff\xfe"]', "not a JSON file in UTF-8"),
        (None, "is not a file; give a JSON list"),
    ],
)
def test_problems_that_cannot_be_used(tmp_path: Path, content: bytes | None, expected: str) -> None:
    data = tmp_path / "problems.json"
    if content is not None:
        data.write_bytes(content)
    code, line = check(SIM, "--data", data)
    assert code == 2 and line.startswith(f"error: data: {data}") and expected in line


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--steps", "0"], "error: --steps is 0; expected at least 1\n"),
        (["--seed", "-5"], "error: --seed is -5; expected a number that is not negative\n"),
        (["--name", "../x"], "error: run name '../x': use letters"),
    ],
)
def test_options_are_held_to_the_limits_of_their_keys(arguments: list[str], expected: str) -> None:
    code, line = check(SIM, *arguments)
    assert code == 2 and line.startswith(expected)


def test_a_run_of_npus_is_not_started_on_a_laptop() -> None:
    file = REPO / "configs" / "a3_256die.toml"
    code, line = check(file)
    assert code == 2
    assert "needs 16 nodes with 16 NPU dies each: type `scripts/launch.sh" in line
    assert "configs/sim.toml runs on any machine" in line


def test_a_run_that_cannot_start_leaves_no_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECIPE_RUNS", str(tmp_path / "runs"))
    with pytest.raises(ConfigError, match="is not a file"):
        launch(load(SIM).with_json_data(tmp_path / "none.json", 64), SIM)
    assert not (tmp_path / "runs").exists()


def test_a_place_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LaunchError, match=r"written to \(Not a directory\); name another place in RECIPE_RUNS"):
        require_room(tmp_path / "file" / "runs")


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require_room(tmp_path / "runs")
    assert not list((tmp_path / "runs").iterdir())
    monkeypatch.setattr(shutil, "disk_usage", lambda _: types.SimpleNamespace(free=3 * 2**20))
    with pytest.raises(LaunchError, match="has 3 MiB of free disk; a run needs at least 100 MiB"):
        require_room(tmp_path / "runs")


@pytest.mark.parametrize("character", [" ", "'", "$", "(", "&", "*", "#", "\\", "["])
def test_an_interpreter_that_ray_cannot_start(character: str) -> None:
    with pytest.raises(LaunchError, match="Ray cannot start workers from a path with"):
        require_plain_interpreter(f"/home/me/my{character}work/.venv/bin/python")


def test_other_paths_are_as_good_as_any() -> None:
    require_plain_interpreter("/home/Jürgen/a-b_c.d+e@f,g=h:i%j~k/.venv/bin/python3.11")
