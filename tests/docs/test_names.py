# SPDX-License-Identifier: Apache-2.0
"""What the pages call by name: variables of the environment, keys of the run file, ids of checks, TOML and Python."""

from __future__ import annotations

import ast
import dataclasses
import os
import re
import subprocess
import sys
import typing
from pathlib import Path

import pytest

from recipe.checks.catalogue import every_check
from recipe.own_packages import own_packages
from recipe.runfile import schema
from tests.docs import pages
from tests.docs.pages import PAGES, REPO

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

OURS = (*own_packages(), "scripts", "npu_sim", "Dockerfile*")
# Read by CANN, the shell, an interpreter or the C library; what else a page names must be in a source here.
ELSEWHERE = {"ASCEND_TOOLKIT_HOME", "MALLOC_ARENA_MAX", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"}
CHECKS = {check.id: check for check in every_check()}


def variables(page: str) -> set[str]:
    shown = [block for language, block in pages.blocks(page) if language not in ("python", "diff")]
    inline = re.sub(r"\S+\.md\b", "", " ".join([*pages.spans(page), *shown]))  # pages have capitals, too
    return set(re.findall(r"\b(?:[A-Z][A-Z0-9]+_)+[A-Z0-9]*[A-Z][A-Z0-9]*\b", inline))


@pytest.fixture(scope="module")
def sources() -> str:
    files = subprocess.run(["git", "ls-files", *OURS], cwd=REPO, capture_output=True, text=True, check=True).stdout
    read = [REPO / name for name in files.splitlines() if name.endswith((".py", ".sh", ".cpp", ".h", "V3"))]
    return "\n".join(file.read_text(encoding="utf-8") for file in read if file.is_file())


@pytest.mark.parametrize("page", PAGES)
def test_every_variable_is_read_or_set_by_the_code(page: str, sources: str) -> None:
    for name in variables(page):
        if name.startswith(("RECIPE_", "NPU_SIM_")):
            assert re.search(rf"""["'{{$]{name}\b""", sources), f"{page}: nothing of ours reads {name}"
        elif not re.search(rf"\b{name}\b", sources):
            tree = Path(os.environ.get("RECIPE_UPSTREAM", REPO / "upstream"))
            found = subprocess.run(["grep", "-rqwF", "--include=*.py", name, f"{tree}/"], check=False).returncode == 0
            assert found or name in ELSEWHERE, f"{page}: {name} is in no source here"


SECTIONS = {one.name: typing.get_type_hints(schema.RunConfig)[one.name] for one in dataclasses.fields(schema.RunConfig)}


def keys(section: str) -> set[str]:
    kind = SECTIONS[section]
    return {one.name for one in dataclasses.fields(kind)} if dataclasses.is_dataclass(kind) else set()


def named_keys(page: str) -> list[tuple[str, str]]:
    """Section and key of `[section] key`, and of the TOML blocks, which must be TOML."""
    found = [match.groups() for span in pages.spans(page) if (match := re.match(r"\[(\w+)\] (\w+)", span))]
    for language, block in pages.blocks(page):
        if language == "toml":
            found += [(section, key) for section, table in tomllib.loads(block).items() for key in table]
    return found


@pytest.mark.parametrize("page", PAGES)
def test_every_key_is_one_of_the_run_file(page: str) -> None:
    for section, key in named_keys(page):
        assert section in SECTIONS, f"{page}: [{section}]"
        # The keys of [environment] are variables, and those of [verl] verl's.
        assert key in keys(section) or section in ("environment", "verl"), f"{page}: [{section}] {key}"


def test_the_pages_name_keys_variables_and_checks_at_all() -> None:
    assert len({key for page in PAGES for key in named_keys(page)}) > 10
    assert len({name for page in PAGES for name in variables(page)}) > 20
    assert {"rollout", "cluster", "environment"} <= set(SECTIONS) and "tensor_parallel" in keys("rollout")


@pytest.mark.parametrize("page", PAGES)
def test_every_check_that_is_named_exists(page: str) -> None:
    letters = "".join({id[0] for id in CHECKS})
    named = set(re.findall(rf"\b[{letters}]\d{{3}}\b", pages.text(page)))
    known = {*CHECKS, *re.findall(r'^@check\(\n    "(\w+)"', "\n".join(pages.files(page).values()), re.MULTILINE)}
    assert named <= known, f"{page}: {named - known}"


@pytest.mark.parametrize("page", PAGES)
def test_blocks_of_python_are_python(page: str) -> None:
    for language, block in pages.blocks(page):
        if language == "python":
            ast.parse(block)
