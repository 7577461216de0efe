# SPDX-License-Identifier: Apache-2.0
"""CONTRIBUTING.md's examples, followed to the letter in a copy of the tree: files, differences, commands, answers."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.docs.pages import FOLLOWED, REPO, files, text

_UPSTREAM = Path(os.environ.get("RECIPE_UPSTREAM", REPO / "upstream")).resolve()
_FILES = {content: name for name, content in files(FOLLOWED).items()}
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Step:
    """A block of an example: a file, a difference, commands, or what these print."""

    file: str | None
    language: str
    content: str


def examples() -> dict[str, list[Step]]:
    """The blocks of each section of the page, below its heading."""
    sections = re.split(r"^## (.*)$", text(FOLLOWED), flags=re.MULTILINE)[1:]
    return {
        heading: [Step(_FILES.get(content), language, content) for language, content in _BLOCK.findall(section)]
        for heading, section in zip(sections[::2], sections[1::2], strict=True)
    }


EXAMPLES = examples()


def changed(before: str, hunk: str) -> str:
    """The text with a hunk's lines in place of those that it shows as they are or takes out."""
    lines = hunk.splitlines(keepends=True)
    old = "".join(line[1:] for line in lines if line[0] in " -")
    new = "".join(line[1:] for line in lines if line[0] in " +")
    assert before.count(old) == 1, f"{FOLLOWED}: stands {before.count(old)} times in the file, not once:\n{old}"
    return before.replace(old, new)


def differences(content: str) -> Iterator[tuple[str, str]]:
    """Path and hunk, for each hunk of a block of differences."""
    for path, hunks in re.findall(r"^--- a/(\S+)\n\+\+\+ b/\1\n(.*?)(?=^--- |\Z)", content, re.MULTILINE | re.DOTALL):
        for hunk in hunks.split("@@\n")[1:]:
            yield path, hunk


def follow(steps: list[Step], tree: Path) -> None:
    """Do in `tree` what the blocks say; what a block without a language holds was printed by the commands above it."""
    printed = ""
    for step in steps:
        if step.file:
            assert not (tree / step.file).exists(), f"{FOLLOWED}: {step.file} is there already"
            (tree / step.file).parent.mkdir(parents=True, exist_ok=True)
            (tree / step.file).write_text(step.content, encoding="utf-8")
        elif step.language == "diff":
            for path, hunk in differences(step.content):
                before = (tree / path).read_text(encoding="utf-8")
                (tree / path).write_text(changed(before, hunk), encoding="utf-8")
        elif step.language == "bash":
            printed = "".join(run(line, tree) for line in step.content.splitlines())
        else:
            for line in step.content.splitlines():
                assert line in printed, f"{FOLLOWED}: {line!r} is not in what was printed:\n{printed}"


def run(line: str, tree: Path) -> str:
    """What a command prints, as a reader types it in `tree`."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith("RECIPE_") and name != "PYTHONPATH"
    }
    done = subprocess.run(
        ["bash", "-c", line], cwd=tree, env=kept, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, f"{FOLLOWED}: {line}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of what git knows and would take, beside this tree's environment and upstream sources."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=REPO, capture_output=True, text=True, check=True).stdout.splitlines()
    for name in names:
        if (REPO / name).is_file():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPO / name, tmp_path / name)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    (tmp_path / "upstream").symlink_to(_UPSTREAM)
    return tmp_path


def test_there_is_an_example_of_each_thing_that_people_add() -> None:
    assert list(EXAMPLES) == [
        *("A patch", "A verifier", "A model", "An operator of the simulator", "A check", "A run file"),
    ]
    for heading, steps in EXAMPLES.items():
        assert {"bash", ""} < {step.language for step in steps}, heading


@pytest.mark.parametrize("heading", EXAMPLES)
def test_an_example_does_what_the_page_says(heading: str, tree: Path) -> None:
    follow(EXAMPLES[heading], tree)


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ([Step("README.md", "", "")], "README.md is there already"),
        ([Step(None, "diff", "--- a/README.md\n+++ b/README.md\n@@\n+x\n no such line\n")], "stands 0 times"),
        ([Step(None, "bash", "echo one\nexit 3\n")], "exit 3"),
        ([Step(None, "bash", "echo one\n"), Step(None, "", "two\n")], "'two' is not in what was printed:\n  one"),
    ],
)
def test_a_page_that_is_wrong_is_found(steps: list[Step], said: str, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# Title\n", encoding="utf-8")
    with pytest.raises(AssertionError, match=said):
        follow(steps, tmp_path)


def test_a_difference_keeps_what_it_shows_as_it_is() -> None:
    assert changed("a\nb\nc\n", " a\n-b\n+x\n c\n") == "a\nx\nc\n"
