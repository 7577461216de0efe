# SPDX-License-Identifier: Apache-2.0
"""The README: its launch line taken as far as a reader's file allows, and its test command.

That each of its commands is taken or runs, that its links and names are right, and that the Chinese one says the same,
is shown in tests/docs with that of the other pages.
"""

from __future__ import annotations

import os
import shlex
import subprocess

from tests.docs.pages import REPO, blocks, commands, text


def typed(name: str) -> list[list[str]]:
    """Every line of the shell blocks, without its comment."""
    lines = [line for language, block in blocks(name) if language == "bash" for line in block.splitlines()]
    return [shlex.split(line, comments=True) for line in lines]


def test_the_launch_line_is_taken_up_to_the_placeholder_for_the_head() -> None:
    (line,) = (line for line in commands("README.md") if "scripts/launch.sh" in line)
    kept = {key: value for key, value in os.environ.items() if not key.startswith("RECIPE_")}
    done = subprocess.run(
        shlex.split(line), cwd=REPO, env=kept, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 2 and "the run was not started" in done.stderr, done.stdout + done.stderr
    assert "V012 error: [cluster] head = 192.0.2.1" in done.stdout


def test_ci_runs_the_readme_s_test_command() -> None:
    assert ["bash", "scripts/test.sh"] in typed("README.md")
    assert text(".ci/run").rstrip().endswith("exec bash scripts/test.sh")
