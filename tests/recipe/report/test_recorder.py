# SPDX-License-Identifier: Apache-2.0
"""Event lines: one file per process, whole lines only, nothing without a run directory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from recipe.report.recorder import read_events, read_lines, record

REPO = Path(__file__).resolve().parents[3]


class Scalar:
    """Stands for a tensor of one element."""

    def __float__(self) -> float:
        return 2.5


def test_an_event_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECIPE_RUN_DIR", str(tmp_path))
    monkeypatch.setenv("RANK", "3")
    record("memory", phase="released", allocated=17, mean=Scalar(), where=Path("/x"))
    (event,) = read_events(tmp_path)
    assert (event["kind"], event["phase"], event["allocated"], event["mean"]) == ("memory", "released", 17, 2.5)
    assert (event["pid"], event["rank"], event["where"]) == (os.getpid(), 3, "/x")


def test_without_a_run_directory_nothing_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RECIPE_RUN_DIR", raising=False)
    monkeypatch.chdir(tmp_path)
    record("memory", phase="released")
    assert list(tmp_path.iterdir()) == []


def test_processes_write_to_files_of_their_own(tmp_path: Path) -> None:
    code = "from recipe.report.recorder import record\nfor i in range(200): record('tick', number=i, text='x' * 500)"
    environment = {**os.environ, "RECIPE_RUN_DIR": str(tmp_path), "PYTHONPATH": str(REPO)}
    children = [subprocess.Popen([sys.executable, "-S", "-c", code], env=environment) for _ in range(3)]
    assert [child.wait(timeout=60) for child in children] == [0, 0, 0]
    events = read_events(tmp_path)
    for child in children:
        assert [event["number"] for event in events if event["pid"] == child.pid] == list(range(200))
    assert [event["time"] for event in events] == sorted(event["time"] for event in events)


def test_a_torn_line_does_not_hide_the_others(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_bytes(b'{"a": 1}\n[1]\n\xff\xfe\n{"a": 2}\n{"a": 3')
    assert read_lines(path) == [{"a": 1}, {"a": 2}]
    assert read_lines(tmp_path / "missing.jsonl") == []
