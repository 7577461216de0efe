# SPDX-License-Identifier: Apache-2.0
"""One node's Ray: what is asked of its packages before anything starts."""

from __future__ import annotations

import importlib.metadata
import re
import sys
from pathlib import Path

import pytest

from recipe.__main__ import main

REPO = Path(__file__).resolve().parents[3]


@pytest.fixture
def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run file of two nodes, and an empty directory for runs."""
    monkeypatch.setenv("RECIPE_RUNS", str(tmp_path / "runs"))
    text = (REPO / "configs" / "sim.toml").read_text(encoding="utf-8")
    text = re.sub("^nodes = 1$", 'nodes = 2\nhead = "127.0.0.2"', text, flags=re.MULTILINE)
    (tmp_path / "two.toml").write_text(text.replace("dies_per_node = 2", "dies_per_node = 1"), encoding="utf-8")
    return tmp_path / "two.toml"


def test_a_dashboard_without_its_packages_is_one_line_before_anything_starts(
    two: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "ray.dashboard.optional_deps", raising=False)
    monkeypatch.setitem(sys.modules, "aiohttp_cors", None)
    assert main(["node", str(two), "--dashboard", "--no-preflight"]) == 1
    told = capsys.readouterr()
    assert told.out == "" and told.err.count("\n") == 1
    assert "aiohttp_cors is not installed" in told.err
    assert f'pip install "ray[default]=={importlib.metadata.version("ray")}"' in told.err
    assert not (two.parent / "runs").exists()


@pytest.mark.parametrize(
    "option", [["--dashboard"], ["--node-name", "a"], ["--deadline", "9"], ["--token-file", "t"], ["--worker"]], ids=str
)
def test_options_of_several_nodes_are_refused_for_one(option: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["node", str(REPO / "configs" / "sim.toml"), *option]) == 2
    assert f"error: {option[0]} is for runs on several nodes" in capsys.readouterr().err
