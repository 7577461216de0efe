# SPDX-License-Identifier: Apache-2.0
"""The room stands on the standard library alone, its parts import downward only, and its tours name every file."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import recipe.reward

ROOM = Path(recipe.reward.__file__).parent
REPOSITORY = ROOM.parents[1]
#: What the files of each part import, besides their own part. Those that stand directly in the room are one part.
BELOW = {"grammar": set(), "equality": {"grammar"}, "": {"grammar", "equality"}, "processes": {"grammar", ""}}
#: Tier 3's process runs in an environment that has this package.
OPTIONAL = {"tier3_worker.py": {"math_verify"}}


def imported(file: Path) -> Iterator[str]:
    """The modules that a file imports anywhere in it."""
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module is not None
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def part_of(module: str) -> str:
    """The part of the room that a module of it belongs to."""
    part = module.removeprefix("recipe.reward.").partition(".")[0]
    return part if (ROOM / part).is_dir() else ""


@pytest.mark.parametrize("file", sorted(ROOM.rglob("*.py")), ids=lambda file: str(file.relative_to(ROOM)))
def test_a_file_imports_the_standard_library_and_what_is_below_it(file: Path) -> None:
    part = "" if file.parent == ROOM else file.parent.name
    for module in imported(file):
        package = module.partition(".")[0]
        if package == "recipe":
            assert module.startswith("recipe.reward."), module
            assert part_of(module) in BELOW[part] | {part}, module
        else:
            assert package in sys.stdlib_module_names | OPTIONAL.get(file.name, set()), module


@pytest.mark.parametrize("part", BELOW)
def test_the_tour_of_a_part_names_its_files(part: str) -> None:
    tour = ast.get_docstring(ast.parse((ROOM / part / "__init__.py").read_text("utf-8"))) or ""
    named = re.findall(r"^``([a-z0-9_]+(?:\.py|/))``  ", tour, re.M)
    entries = [path for path in (ROOM / part).iterdir() if path.name not in ("__init__.py", "__pycache__")]
    assert sorted(named) == sorted(path.name + "/" * path.is_dir() for path in entries)


def test_a_grading_process_imports_nothing_of_the_rest_of_the_recipe() -> None:
    source = (
        f"import sys; sys.path.insert(0, {str(REPOSITORY)!r})\n"
        "import recipe.reward.verifiers, recipe.reward.processes.worker\n"
        "rooms = {name for name in sys.modules if name.startswith('recipe.') and name.count('.') == 1}\n"
        "assert rooms == {'recipe.reward'}, rooms\n"
    )
    # -I and -S, as workers are started: without the environment's packages.
    subprocess.run([sys.executable, "-I", "-S", "-c", source], check=True, timeout=60)
