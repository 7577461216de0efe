# SPDX-License-Identifier: Apache-2.0
"""Mistakes at true size that nothing sees before a die does, or late: a rehearsal ends with one line about each.

Each is made in a shipped run file, which ends without such a line (docs/REHEARSAL.md). Composing, plan and preflight
take every one of them.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import tomllib

from recipe.__main__ import main
from recipe.plan.memory import memory
from recipe.plan.subject import subject
from recipe.runfile.config import load
from recipe.runfile.paths import REPO
from recipe.runfile.toml_text import as_toml

MEASURED, BASE_ACC = "a3_256die_random_init", "a3_384die_base_acc"
WEIGHTS = "a3_256die_true_weight"
# So little that a rollout comes to its end soon, where it plays a part only by being there.
SHORT = ("--stage", "0", "--prompt-tokens", "8", "--response-tokens", "16", "--decode-steps", "2")
LIMIT_S = 1200


@dataclass(frozen=True)
class Mistake:
    """A run file with a mistake.

    Attributes:
        file: the shipped one.
        changed: keys by section.
        options: of `rehearse`.
        line: what it ends with, a regular expression.
        warned: checks of preflight that warn of it, or of what it leads to.
        refused: by an upstream or the die, for which the exit code is 1; else something does not fit, which is a result.
    """

    file: str
    options: tuple[str, ...]
    line: str
    changed: dict[str, dict[str, Any]] = field(default_factory=dict)
    warned: tuple[str, ...] = ()
    refused: bool = True

    def write(self, directory: Path) -> Path:
        values = tomllib.loads((REPO / f"configs/{self.file}.toml").read_text(encoding="utf-8"))
        for section, keys in self.changed.items():
            values.setdefault(section, {}).update(keys)
        file = directory / "run.toml"
        file.write_text(as_toml(values), encoding="utf-8")
        return file


MISTAKES = {}


@pytest.mark.parametrize("name", MISTAKES)
def test_neither_plan_nor_preflight_stops_it(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mistake = MISTAKES[name]
    file = mistake.write(tmp_path)
    assert memory(subject(load(file))).fits
    assert main(["preflight", str(file), "--no-cluster", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    before = mistake.__class__(mistake.file, (), "").write(tmp_path)
    main(["preflight", str(before), "--no-cluster", "--json"])
    without = json.loads(capsys.readouterr().out)
    assert warnings(report) - warnings(without) == set(mistake.warned)


def warnings(report: dict[str, Any]) -> set[str]:
    return set()


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the rehearsals of a run file find what was described of its stages."""
    return tmp_path_factory.mktemp("rehearsals")


@pytest.mark.slow
@pytest.mark.mindspeed
@pytest.mark.parametrize("name", MISTAKES)
def test_a_rehearsal_ends_with_one_line_about_it(
    name: str, places: Path, tmp_path: Path, mindspeed_upstream: Path
) -> None:
    mistake = MISTAKES[name]
    command = [
        sys.executable, "-m", "recipe", "rehearse", str(mistake.write(tmp_path)),
        "--out", str(places / mistake.file), *mistake.options,
    ]  # fmt: skip
    done = subprocess.run(
        command, cwd=REPO, env={**os.environ, "RECIPE_UPSTREAM": str(mindspeed_upstream)}, capture_output=True,
        text=True, timeout=LIMIT_S, check=False,
    )  # fmt: skip
    said = (done.stdout if not mistake.refused else done.stderr).splitlines()
    assert done.returncode == (1 if mistake.refused else 0), done.stderr[-3000:]
    assert re.match(mistake.line, said[-1]), said[-1]
    assert "Traceback" not in done.stdout + done.stderr
