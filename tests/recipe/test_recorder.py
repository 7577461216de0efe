# SPDX-License-Identifier: Apache-2.0
"""Event lines: one file per process, whole lines only, nothing without a run directory."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from recipe.clock import Clock
from recipe.launch.progress import Progress
from recipe.recorder import append_line, read_events, read_lines, record
from recipe.report.metrics import read_steps

REPO = Path(__file__).resolve().parents[2]


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
    code = "from recipe.recorder import record\nfor i in range(200): record('tick', number=i, text='x' * 500)"
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


ODD = [
    b'{"step": 1e400, "time": 1e400}',
    b'{"step": ' + b"9" * 5000 + b"}",
    b'{"time": ' + b"9" * 4000 + b"}",
    b'{"time": "yesterday"}',
    b'{"time": NaN}',
    b"[" * 100_000,
    b'{"a": ' * 100_000,
    b"\xff\xfe\x00",
    b"null",
    b"",
]


def test_odd_lines_are_left_out_or_have_no_time(tmp_path: Path) -> None:
    directory = tmp_path / "events"
    directory.mkdir()
    (directory / "1.jsonl").write_bytes(b"\n".join([b'{"time": 2.0}', *ODD, b'{"time": 1.0}\n']))
    times = [event.get("time") for event in read_events(tmp_path)]
    assert len(times) == 6 and times[-2:] == [1.0, 2.0], "what has no time comes first"


@pytest.mark.parametrize("line", ODD)
def test_an_odd_line_of_metrics_is_no_step_and_no_end(tmp_path: Path, line: bytes) -> None:
    metrics, out = tmp_path / "metrics.jsonl", io.StringIO()
    good = b'{"step": %d, "data": {"timing_s/step": 1e400, "critic/score/mean": NaN, "x": ' + b"9" * 400 + b"}}\n"
    progress = Progress(metrics, tmp_path / "driver.log", 2, Clock(out))
    metrics.write_bytes(good % 1 + line + b"\n" + good % 2)
    progress.update()
    progress.close()
    assert progress.step == 2 and "step 2 of 2  reward nan  inf s" in out.getvalue()
    assert [step.number for step in read_steps(metrics)] == [1, 2]


def test_a_line_that_did_not_fit_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, write = tmp_path / "lines.jsonl", os.write
    append_line(path, {"a": 1})
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:3]))
    with pytest.raises(OSError, match="No space left on device"):
        append_line(path, {"a": 2})
    monkeypatch.setenv("RECIPE_RUN_DIR", str(tmp_path))
    record("memory", phase="released")  # an event that cannot be written ends nothing
    monkeypatch.setattr(os, "write", write)
    append_line(path, {"a": 3})
    assert read_lines(path) == [{"a": 1}, {"a": 3}] and read_events(tmp_path) == []
