# SPDX-License-Identifier: Apache-2.0
"""The READMEs: the same commands in both languages, and every one of them does what it says or is at least taken."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]
READMES = ("README.md", "README_zh.md")
_BLOCK = re.compile(r"^```bash\n(.*?)^```", re.MULTILINE | re.DOTALL)


def text(name: str) -> str:
    return (REPO / name).read_text(encoding="utf-8")


def commands(name: str) -> list[str]:
    """Every command of the shell blocks, without its comment."""
    return [
        " ".join(shlex.split(line, comments=True))
        for block in _BLOCK.findall(text(name))
        for line in block.splitlines()
    ]


COMMANDS = commands("README.md")
# The commands that change nothing and need nothing but this tree: they are run as they stand.
RUN = [
    line
    for line in COMMANDS
    if re.search(r"-m recipe (sync --check|patches list|patches verify|plan|show|preflight|doctor)\b", line)
]
# The tools that convert the reader's own files: run as they stand, they miss just those.
CONVERT = [line for line in COMMANDS if line.startswith("python3 scripts/")]


def run(line: str, **environment: str) -> subprocess.CompletedProcess[str]:
    words = shlex.split(line)
    if Path(words[0]).name.startswith("python"):
        words[0] = sys.executable
    kept = {key: value for key, value in os.environ.items() if not key.startswith("RECIPE_")}
    return subprocess.run(
        words, capture_output=True, text=True, timeout=120, check=False, cwd=REPO, env={**kept, **environment}
    )


def test_both_languages_give_the_same_commands_and_headings() -> None:
    assert commands("README_zh.md") == COMMANDS and len(COMMANDS) > 15
    levels = [[line.split()[0] for line in text(name).splitlines() if line.startswith("#")] for name in READMES]
    assert levels[0] == levels[1]


@pytest.mark.parametrize("name", READMES)
def test_every_file_that_is_named_is_there(name: str) -> None:
    links = {link.partition("#")[0] for link in re.findall(r"\]\(([^)]+)\)", text(name))} - {""}
    paths = links | set(
        re.findall(r"`((?:scripts|configs|docs|recipe|benchmarks|npu_sim|tests|data)/[\w./-]*)`", text(name))
    )
    assert len(paths) > 20
    assert not [path for path in paths if not (REPO / path).exists()]


@pytest.mark.parametrize("name", READMES)
def test_links_within_the_page_lead_to_headings(name: str) -> None:
    headings = [line.lstrip("# ").lower() for line in text(name).splitlines() if line.startswith("## ")]
    anchors = {re.sub(r"[^\w-]", "", heading.replace(" ", "-")) for heading in headings}
    inner = re.findall(r"\]\(#([^)]+)\)", text(name))
    assert inner and set(inner) <= anchors


@pytest.mark.parametrize("line", RUN)
def test_commands_that_only_look(line: str) -> None:
    done = run(line)
    # doctor's exit code tells what is wrong with this machine, which is not the README's business.
    assert done.returncode == 0 or "doctor" in line, done.stdout + done.stderr
    assert done.stdout and "Traceback" not in done.stderr


@pytest.mark.parametrize("line", CONVERT)
def test_commands_over_the_reader_s_files_miss_only_those(line: str) -> None:
    done = run(line)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stdout + done.stderr
    assert re.match(r"error: .*(/shared/|deepscaler\.json)", done.stderr)


def test_the_other_commands() -> None:
    others = [line for line in COMMANDS if line not in RUN and line not in CONVERT]
    for line in others:
        words = shlex.split(line)
        if words[0] == "bash":
            assert (REPO / words[1]).is_file(), line
        elif words[0] == "docker":
            assert (REPO / words[words.index("-f") + 1]).is_file() and words[-1] == ".", line
        else:
            assert re.search(r"-m recipe (report|patches status) [\w/]*runs/\w+$", line), line


def test_the_launch_line_is_taken_up_to_the_placeholder_for_the_head() -> None:
    (line,) = (line for line in COMMANDS if "scripts/launch.sh" in line)
    done = run(line)
    assert done.returncode == 2 and "the run was not started" in done.stderr, done.stdout + done.stderr
    assert "V012 error: [cluster] head = 192.0.2.1" in done.stdout


def test_ci_runs_the_readme_s_test_command() -> None:
    assert "bash scripts/test.sh" in COMMANDS
    assert text(".ci/run").rstrip().endswith("exec bash scripts/test.sh")
