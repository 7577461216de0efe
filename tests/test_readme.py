# SPDX-License-Identifier: Apache-2.0
"""The README: its launch line as far as a reader's file allows, its test command, and what its first screen says.

That each of its commands is taken or runs, that its links and names are right, and that the Chinese one says the same,
is shown in tests/docs with that of the other pages.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys

from recipe.audit.declarations import collect
from recipe.runfile.config import load
from tests.docs.pages import REPO, blocks, commands, text

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


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


def rows(heading: str) -> list[list[str]]:
    """The cells of each row, below its head, of the first table under a heading of the README."""
    section = text("README.md").split(f"\n## {heading}\n")[1]
    table = re.search(r"(?:^\|.*\n)+", section, re.MULTILINE)
    assert table, heading
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in table[0].splitlines()[2:]]


def test_what_runs_on_what_has_every_run_file_with_its_hardware() -> None:
    table = {cells[2].strip("`"): cells for cells in rows("What runs on what")}
    files = [f"configs/{path.name}" for path in REPO.glob("configs/*.toml")]
    assert sorted(table) == sorted(files)
    for name, (_, hardware, _, seen) in table.items():
        cluster = load(REPO / name).cluster
        count = cluster.nodes * cluster.dies_per_node
        kind = {"sim": "simulated dies", "npu": "dies", "cuda": "H20 GPUs"}[cluster.device]
        assert f"{count} {kind}" in hardware, name
        assert ("never started" in seen) == (cluster.device != "sim"), name


def test_the_sources_are_changed_in_the_two_places_that_the_readme_names() -> None:
    assert [patch.package for patch in collect() if patch.kind == "source"] == ["vllm_ascend"]
    prelude = tomllib.loads(text("upstreams.toml"))["prelude"]
    assert prelude["file"].startswith("verl/") and prelude["line"].startswith("from verl_patches import")
    assert "one import line put into verl and one patch to a source file of\nvLLM-Ascend" in text("README.md")


def test_the_picture_is_of_the_run_that_the_readme_says_it_is() -> None:
    picture = text("docs/quickstart_run.svg")
    (caption,) = re.findall(r">(sim: .*)</text>", picture)
    config = load(REPO / "configs/sim.toml")
    assert caption == f"sim: {config.run.steps} steps of GRPO, seed {config.run.seed}, simulated NPUs"
    said = " ".join(text("README.md").split())
    assert f"`configs/sim.toml` with seed {config.run.seed}: {config.run.steps} steps of GRPO" in said
    scores = {cells[0]: cells[1] for cells in rows("The quick start")}
    assert f">{scores[str(config.run.seed)]}</text>" in picture
