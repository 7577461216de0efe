# SPDX-License-Identifier: Apache-2.0
"""`python -m recipe` with a Python that is not the environment's: one line, and what to type."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

import pytest

from recipe.__main__ import main

REPO = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("command", [["launch", "configs/sim.toml"], ["patches", "list"], ["tiny-model", "--out", "x"]])
def test_without_the_packages(command: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-S", "-m", "recipe", *command],
        cwd=REPO,
        env={},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith(f"error: {command[0]} needs the module ") and done.stderr.count("\n") == 1, (
        done.stderr
    )
    assert "use .venv/bin/python, which `bash scripts/setup.sh` makes" in done.stderr


def test_an_old_python(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 9, 18, "final", 0))
    assert main(["doctor"]) == 1
    assert capsys.readouterr().err == "error: this is Python 3.9; the recipe needs 3.10, 3.11 or 3.12\n"


def test_a_missing_module_of_ours_is_a_defect(monkeypatch: pytest.MonkeyPatch) -> None:
    def handler(_: argparse.Namespace) -> int:
        raise ModuleNotFoundError("No module named 'recipe.gone'", name="recipe.gone")

    monkeypatch.setattr("recipe.report.cli._report", handler)
    with pytest.raises(ModuleNotFoundError):
        main(["report", "x"])


@pytest.mark.parametrize("command", [["show", "--keys"], ["show", "configs/sim.toml"]])
def test_a_reader_that_has_seen_enough(command: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "recipe", *command],
        cwd=REPO,
        stdout=writer,
        stderr=subprocess.PIPE,
        timeout=60,
        check=False,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


def test_a_reader_who_has_seen_enough() -> None:
    """As in `... | head`: no traceback, and the exit code of a process that its pipe has ended."""
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "recipe", "patches", "list"]
    done = subprocess.run(command, cwd=REPO, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    os.close(writing)
    assert done.returncode == 141 and done.stderr == ""
