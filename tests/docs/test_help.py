# SPDX-License-Identifier: Apache-2.0
"""What `--help` of every tool says: fits a terminal, tells the exit codes, and gives examples that the tool takes."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from recipe.__main__ import COMMANDS
from tests.docs import tools
from tests.docs.pages import REPO

TOOLS = [
    *(f"python -m recipe {name}" for name in COMMANDS),
    *(str(path.relative_to(REPO)) for path in sorted(REPO.glob("scripts/*.py"))),
]
SCRIPTS = [path.name for path in sorted(REPO.glob("scripts/*.sh")) if path.name != "env.sh"]


def examples(page: str) -> list[str]:
    """The commands below "example(s):", without what is said of them."""
    below = re.search(r"^examples?: *\n((?: +.*\n)+)", page.replace("\\\n", " "), re.MULTILINE)
    lines = below[1].splitlines() if below else re.findall(r"^example: (.*)$", page, re.MULTILINE)
    commands = [re.split(r"(?<=\S) {3,}(?=\S)", line.strip())[0] for line in lines]
    return [" ".join(one.split()) for one in commands if re.match(r"python|scripts/|json_to|bash", one)]


@pytest.mark.parametrize("tool", TOOLS)
def test_a_tool_s_help_has_examples_that_it_takes_and_its_exit_codes(
    tool: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    wanted = tools.command(f"{tool} --help")
    assert wanted is not None
    told = tools.run(wanted)
    assert told.code == 0 and max(map(len, told.out.splitlines())) <= 120
    assert "exit code" in told.out, told.out
    assert examples(told.out), told.out
    for line in examples(told.out):
        assert tools.fault(line) is None, line


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_s_help_changes_nothing_and_says_how_it_is_used(name: str, tmp_path: Path) -> None:
    done = subprocess.run(
        ["bash", str(REPO / "scripts" / name), "--help"], cwd=tmp_path, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0 and "usage: " in done.stdout and not done.stderr, done.stdout + done.stderr
    assert "exit code" in done.stdout and not list(tmp_path.iterdir())
    for line in examples(done.stdout):
        assert tools.fault(line) is None, line
