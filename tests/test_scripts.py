# SPDX-License-Identifier: Apache-2.0
"""What the scripts say when they cannot work: one line, before anything is done."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]


def tools(directory: Path, *without: str) -> str:
    """A PATH with the tools the scripts use, except some."""
    directory.mkdir()
    for name in (
        *("bash", "sh", "cat", "cut", "awk", "df", "dirname", "sha256sum", "sed", "find", "sort", "realpath", "mkdir"),
        *("rm", "tail", "grep", "env", "g++", "kill", "flock", "tr", "sleep", "cp", "chmod"),
    ):
        found = shutil.which(name)
        if name not in without and found:
            (directory / name).symlink_to(found)
    return str(directory)


def script(name: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", str(REPO / "scripts" / name), *arguments],
        env={"HOME": os.environ.get("HOME", "/"), **environment},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def one_line(done: subprocess.CompletedProcess[str], code: int = 1) -> str:
    assert done.returncode == code, done.stdout + done.stderr
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("error: "), done.stderr
    return done.stderr


@pytest.mark.parametrize("name", ["setup.sh", "quickstart.sh", "test.sh"])
def test_without_a_compiler(tmp_path: Path, name: str) -> None:
    path = tools(tmp_path / "bin", "g++")
    assert "no g++ found" in one_line(script(name, PATH=path, RECIPE_VENV=str(tmp_path / "venv")))
    assert not (tmp_path / "venv").exists()


def test_with_too_little_memory(tmp_path: Path) -> None:
    done = script(
        "setup.sh",
        PATH=tools(tmp_path / "bin"),
        RECIPE_VENV=str(tmp_path / "venv"),
        RECIPE_MIN_MEMORY_MIB="999999999",
    )
    assert "MiB of memory; a run needs about 999999999 MiB" in one_line(done)


def test_with_too_little_disk(tmp_path: Path) -> None:
    done = script(
        "setup.sh",
        PATH=tools(tmp_path / "bin"),
        RECIPE_VENV=str(tmp_path / "venv"),
        RECIPE_MIN_MEMORY_MIB="1",
        RECIPE_MIN_DISK_MIB="99999999999",
    )
    assert "MiB of free disk; set-up needs about 99999999999 MiB" in one_line(done)
    assert not (tmp_path / "venv").exists()


def test_with_the_wrong_python(tmp_path: Path) -> None:
    old = tmp_path / "python3"
    old.write_text("#!/bin/sh\necho 3.8\n", encoding="utf-8")
    old.chmod(0o755)
    done = script("setup.sh", PATH=tools(tmp_path / "bin"), RECIPE_VENV=str(tmp_path / "venv"), RECIPE_PYTHON=str(old))
    assert f"RECIPE_PYTHON is {old}: {old} is 3.8; name a Python 3.10, 3.11 or 3.12" in one_line(done, code=2)
    assert not (tmp_path / "venv").exists()


def test_a_python_that_is_not_there(tmp_path: Path) -> None:
    done = script(
        "setup.sh", PATH=tools(tmp_path / "bin"), RECIPE_VENV=str(tmp_path / "venv"), RECIPE_PYTHON="/no such/python"
    )
    assert "RECIPE_PYTHON is /no such/python: that does not run" in one_line(done, code=2)


def test_without_any_python(tmp_path: Path) -> None:
    done = script("setup.sh", PATH=tools(tmp_path / "bin"), RECIPE_VENV=str(tmp_path / "venv"))
    assert "no python3 at all" in one_line(done)


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("setup.sh", ["--fast"], "unknown option --fast"),
        ("quickstart.sh", ["--step", "3"], "unknown option --step"),
        ("quickstart.sh", ["--steps"], "--steps needs a value"),
        ("quickstart.sh", ["--config", "configs/none.toml"], "none.toml is not a file"),
        ("quickstart.sh", ["--steps", "ten"], "--steps is 'ten'; give a whole number"),
        ("quickstart.sh", ["--seed", "-1"], "--seed is '-1'; give a whole number"),
    ],
)
def test_a_wrong_option(tmp_path: Path, name: str, arguments: list[str], expected: str) -> None:
    assert expected in one_line(script(name, *arguments, PATH=tools(tmp_path / "bin")), code=2)


@pytest.mark.parametrize("character", [" ", "'", "$", "(", "&", "*", "#", "\\", "["])
def test_a_path_that_ray_cannot_start_workers_from(tmp_path: Path, character: str) -> None:
    venv = tmp_path / f"my{character}venv"
    line = one_line(script("setup.sh", PATH=tools(tmp_path / "bin"), RECIPE_VENV=str(venv)), code=2)
    assert f"{venv}: Ray cannot start workers from a path with '{character}' in it" in line
    assert not venv.exists()


def test_recipe_upstream_means_the_callers_directory_after_a_script_has_changed_it(tmp_path: Path) -> None:
    code = f'source "{REPO}/scripts/env.sh"; cd /; "$BASH" -c \'printf %s "$RECIPE_UPSTREAM"\''
    for given, meant in (("mine", f"{tmp_path}/mine"), ("/a/../b", "/b"), ("", "")):
        done = subprocess.run(
            ["bash", "-c", code], cwd=tmp_path, env={"PATH": os.environ["PATH"], "RECIPE_UPSTREAM": given},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert done.stdout == meant
