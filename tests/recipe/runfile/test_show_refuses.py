# SPDX-License-Identifier: Apache-2.0
"""`python -m recipe show` prints no command that a launch of the same file would refuse."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from recipe.__main__ import main

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
FORMS = ([], ["--shell"], ["--json"])


def shown(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = main(["show", *map(str, arguments)])
    return code, *capsys.readouterr()


def changed(tmp_path: Path, name: str, *edits: tuple[str, str]) -> Path:
    text = (CONFIGS / f"{name}.toml").read_text(encoding="utf-8")
    for old, new in edits:
        assert old in text
        text = text.replace(old, new, 1)
    file = tmp_path / f"{name}.toml"
    file.write_text(text, encoding="utf-8")
    return file


@pytest.mark.parametrize("file", sorted(CONFIGS.glob("*.toml")), ids=lambda file: file.stem)
def test_a_shipped_run_is_shown_though_its_files_are_elsewhere(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, errors = shown(capsys, file)
    assert (code, errors) == (0, "") and "# python -m recipe.launch.driver" in out


# The run file, what is written in the place of what, and the finding that stops a launch of it.
REFUSED = [
    ("a3_256die", ("memory_share = 0.8", "memory_share = 0.97"), "V010 error: memory_share = 0.97"),
    ("a3_256die", ("memory_share = 0.8", "memory_share = 0.2"), "M002 error: "),
    ("a3_256die", ("samples_per_prompt = 16", "samples_per_prompt = 1"), "T003 error: "),
    ("a3_256die", ('head = "192.0.2.1"', 'head = "127.0.0.1"'), "C003 error: [cluster] head = 127.0.0.1"),
    ("a3_256die", ("/shared/runs", "runs"), "N017 error: [run] output_dir = runs"),
    ("sim", ("nodes = 1\n", "nodes = 2\n"), "C003 error: no [cluster] head"),
    ("sim", ("expert_parallel = 2", "expert_parallel = 1"), "L018 error: "),
    ("sim", ('template = "r1_zero"', 'template = "r2"'), "D004 error: "),
    ("sim", ('verifier = "r1_zero"', "path = 'mine.py'"), "D007 error: "),
]


@pytest.mark.parametrize(("name", "edit", "message"), REFUSED, ids=lambda value: str(value)[:30])
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_what_preflight_refuses_is_not_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, edit: tuple[str, str], message: str, form: list[str]
) -> None:
    code, out, errors = shown(capsys, changed(tmp_path, name, edit), *form)
    assert (code, out) == (2, "")
    lines = errors.splitlines()
    assert any(line.startswith(f"error: {message}") for line in lines) and all(
        line.startswith("error: ") for line in lines
    )


def test_problems_that_launch_cannot_read_are_not_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, errors = shown(capsys, CONFIGS / "sim.toml", "--data", tmp_path / "none.json")
    assert (code, out) == (2, "") and errors.startswith("error: data: ")
    (tmp_path / "few.json").write_text(json.dumps([{"problem": "1 + 1", "answer": "2", "solution": ""}]))
    code, out, errors = shown(capsys, CONFIGS / "sim.toml", "--data", tmp_path / "few.json")
    assert (code, out) == (2, "") and errors.startswith("error: D003 error: 0 problems to learn from")


def test_a_simulated_runs_files_must_be_here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = changed(
        tmp_path,
        "sim",
        ('kind = "arithmetic"', 'kind = "parquet"\ntrain_path = "/none/a"\nvalidation_path = "/none/b"'),
    )
    code, out, errors = shown(capsys, file)
    assert (code, out) == (2, "") and "error: D001 error: [data] train_path = /none/a is not a file" in errors
