# SPDX-License-Identifier: Apache-2.0
"""The catalogue: its form, that a check is in it by being there, and that every check in it is tripped by a test."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from recipe.checks.catalogue import check_named, checks_that_need, every_check
from recipe.checks.declaration import NEEDS, RUNS, SUBJECTS

HERE = Path(__file__).parent
REPO = HERE.parents[2]
NEW_MODULE = '''\
"""A check of somebody's own."""

from recipe.checks.declaration import check
from recipe.checks.finding import bad


@check(
    "N999", "the node has a name", needs="node", any_run=True,
    why="a node without a name is not found by the others", fix="give it one: hostnamectl set-hostname NAME",
)
def _named(facts):
    if facts.machine.host != "a name that no machine has":
        yield bad(f"the name {facts.machine.host}", "another")
'''


def test_there_are_checks_of_every_subject_and_each_says_why_and_what_to_do() -> None:
    checks = every_check()
    assert len(checks) >= 110
    assert {check.id[0] for check in checks} == set(SUBJECTS)
    for check in checks:
        assert check.title and len(check.why) > 20 and len(check.fix) > 10, check.id


def test_checks_are_found_by_what_they_need_and_by_their_ids() -> None:
    ids = [check.id for check in every_check()]
    assert ids == sorted(ids)
    assert sorted(check.id for needs in NEEDS for check in checks_that_need(needs)) == ids
    assert all(checks_that_need(needs) for needs in NEEDS)
    assert {check.id[0] for check in checks_that_need(RUNS)} == {"X"}
    assert check_named("L004").id == "L004"
    with pytest.raises(KeyError):
        check_named("L999")


def test_the_checks_know_neither_of_their_commands_nor_the_launcher() -> None:
    for file in (REPO / "recipe" / "checks").rglob("*.py"):
        imported = re.findall(r"^\s*(?:from|import) (recipe[\w.]*)", file.read_text(encoding="utf-8"), re.MULTILINE)
        assert not [name for name in imported if re.match(r"recipe\.(preflight|doctor|launch)\b", name)], file


def test_every_check_is_tripped_by_a_test() -> None:
    """Tables have a line `"L001": (` or `"X001": [`, and tests of single checks have the id in their names."""
    text = "".join(file.read_text(encoding="utf-8") for file in (HERE / "catalogue").glob("test_*_checks.py"))
    tripped = set(re.findall(r'^    "([A-Z]\d{3})": [(\[]', text, re.MULTILINE))
    tripped |= {id.upper() for id in re.findall(r"^def test_([a-z]\d{3})_", text, re.MULTILINE)}
    assert {check.id for check in every_check()} == tripped


def test_a_module_of_checks_is_found_by_lying_there(tmp_path: Path) -> None:
    """A scratch copy with one file more: both commands and the page have its check, and nothing else was edited."""
    leave_out = shutil.ignore_patterns("__pycache__")
    for name in ("recipe", "configs", "docs", "data"):
        shutil.copytree(REPO / name, tmp_path / name, ignore=leave_out)
    shutil.copy(REPO / "upstreams.toml", tmp_path)
    (tmp_path / "recipe" / "checks" / "catalogue" / "names.py").write_text(NEW_MODULE, encoding="utf-8")

    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
        )

    assert "N999  node    the node has a name" in command("recipe", "preflight", "--list").stdout.splitlines()
    checked = command("recipe", "preflight", "configs/sim.toml", "--no-cluster", "--json")
    assert "N999" in {finding["id"] for finding in json.loads(checked.stdout)["findings"]}
    diagnosed = command("recipe", "doctor", "--json")
    assert "N999" in {finding["id"] for finding in json.loads(diagnosed.stdout)["findings"]}
    assert command("recipe.checks.page").returncode == 0
    rows = (tmp_path / "docs" / "PREFLIGHT.md").read_text(encoding="utf-8").splitlines()
    (row,) = (number for number, line in enumerate(rows) if line.startswith("| N999 | node | the node has a name |"))
    assert rows[row - 1].startswith("| N0") and not rows[row + 1]
