# SPDX-License-Identifier: Apache-2.0
"""The command line of `rehearse`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from recipe.__main__ import main
from recipe.rehearse import conduct
from recipe.runfile.paths import REPO
from tests.recipe.rehearse.made_up import TRUE_SIZE
from tests.recipe.rehearse.test_conduct import COMMAND


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs `python -m recipe rehearse`; gives exit code, output and errors."""
    monkeypatch.setattr(conduct.rehearse_stages, "__defaults__", (1, COMMAND))
    monkeypatch.setattr("recipe.stopping.raise_on_stop_signals", lambda: None)

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(["rehearse", *arguments])
        return code, *capsys.readouterr()

    return run


def test_json_goes_to_the_output_and_into_the_directory_and_progress_beside(
    command: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    code, out, errors = command(str(REPO / TRUE_SIZE), "--stage", "1", "--json", "--out", str(tmp_path))
    made = json.loads(out)
    assert code == 0 and made["run"] == "a3_256die_random_init"
    assert [stage["stage"] for stage in made["stages"]] == [1]
    assert json.loads((tmp_path / "rehearsal.json").read_text()) == made
    assert "stage 1: die 32 of 256" in errors


def test_the_page_is_printed(command: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    code, out, _ = command(str(REPO / TRUE_SIZE), "--stage", "7", "--stage", "1", "--out", str(tmp_path))
    assert code == 0 and "Stage 1, die 32" in out and "Stage 7, die 224" in out and "largest difference" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["configs/none.toml"], "cannot be read"),
        (["configs/h20_128gpu_math_lighteval.toml"], "only runs on NPUs"),
        ([TRUE_SIZE, "--stage", "8"], "--stage 8; expected one of 0 to 7"),
        ([TRUE_SIZE, "--steps", "0"], "--steps 0; expected 1 or more"),
        ([TRUE_SIZE, "--jobs", "0"], "--jobs 0; expected 1 or more"),
        ([TRUE_SIZE, "--expert-load", "nan"], "--expert-load nan"),
        ([TRUE_SIZE, "--prompt-tokens", "2000"], "expected 1 to 1024"),
        ([TRUE_SIZE, "--lengths", "none.csv"], "--lengths none.csv cannot be read"),
    ],
)
def test_what_cannot_be_rehearsed_is_one_line(
    command: Callable[..., tuple[int, str, str]], tmp_path: Path, arguments: list[str], message: str
) -> None:
    code, out, errors = command(str(REPO / arguments[0]), *arguments[1:], "--out", str(tmp_path))
    assert code == 2 and not out
    assert errors.startswith("error: ") and errors.count("\n") == 1 and message in errors
