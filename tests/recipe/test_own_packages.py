# SPDX-License-Identifier: Apache-2.0
"""Which packages are ours is what the tree says, also for the tools that are told of them in `pyproject.toml`."""

from __future__ import annotations

from pathlib import Path

from recipe.own_packages import REPOSITORY, own_packages, patch_packages
from recipe.sources.pins import tomllib


def test_packages_of_a_tree(tmp_path: Path) -> None:
    for name in ("b_patches", "a_patches", "_patches", "recipe", "patches", "c_patches.d"):
        (tmp_path / name).mkdir()
    (tmp_path / "d_patches").write_text("")
    assert patch_packages(tmp_path) == [tmp_path / "a_patches", tmp_path / "b_patches"]
    assert own_packages(tmp_path) == ["recipe", "a_patches", "b_patches"]


def test_tools_are_told_of_every_package() -> None:
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    assert set(settings["ruff"]["lint"]["isort"]["known-first-party"]) == set(own_packages())
    assert set(own_packages()) < set(settings["mypy"]["files"])
