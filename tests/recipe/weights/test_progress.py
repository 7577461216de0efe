# SPDX-License-Identifier: Apache-2.0
"""What a person sees of a job: a bar on a terminal, lines in a log, a table before."""

from __future__ import annotations

import contextlib
import io
import os
import pty
from pathlib import Path

import pytest

from recipe.weights import progress
from recipe.weights.job import Job, Literal, OutputFile
from recipe.weights.progress import ProgressLine, show
from recipe.weights.report import layer_table


def test_a_line_has_bytes_speed_and_time_left() -> None:
    assert show(25_000_000_000, 100_000_000_000, 10) == "25.00 of 100.00 GB, 2.50 GB/s, 0:00:30 left"
    assert show(1_342_000_000, 1_342_000_000_000, 1).endswith("0:16:39 left")
    assert show(0, 10, 0) == "0.00 of 0.00 GB, 0.00 GB/s, 0:00:00 left"


def test_lines_in_a_log_are_far_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    log = io.StringIO()
    with ProgressLine("written", 40_000_000_000, log) as bar:
        for _ in range(40):
            now[0] += 1
            bar(1_000_000_000)
    lines = log.getvalue().splitlines()
    assert len(lines) == 5
    assert lines[0] == "written: 10.00 of 40.00 GB, 1.00 GB/s, 0:00:30 left"
    assert lines[-1] == "written: 40.00 of 40.00 GB, 1.00 GB/s, 0:00:00 left"


def test_a_log_of_a_failure_does_not_end_as_if_all_were_well() -> None:
    log = io.StringIO()
    with pytest.raises(KeyError), ProgressLine("written", 10, log):
        raise KeyError
    assert log.getvalue() == ""


def test_a_bar_on_a_terminal() -> None:
    main, side = pty.openpty()
    with os.fdopen(side, "w") as terminal, ProgressLine("written", 2_000_000, terminal) as bar:
        bar(2_000_000)
    written = b""
    with os.fdopen(main, "rb", buffering=0) as reader, contextlib.suppress(OSError):  # the end of a terminal is EIO
        while part := reader.read(65536):
            written += part
    text = written.decode()
    assert "written" in text and "2.0" in text and "\x1b[" in text


def test_the_table_joins_layers_that_are_alike(tmp_path: Path) -> None:
    sizes = {"model.norm.weight": 5, "model.layers.0.a": 7, "model.layers.1.a": 7, "model.layers.1.b": 1}
    sizes |= {"model.layers.2.a": 8, "model.layers.3.a": 8, "model.layers.5.a": 8}
    parts = [Literal(bytes(size), name) for name, size in sizes.items()]
    files = [OutputFile("f", parts[:4]), OutputFile("g", parts[4:])]
    job = Job("test", tmp_path, tmp_path / "out", "", "", files, list, {})
    assert [line.split() for line in layer_table(job)][1:] == [
        ["outside", "1", "5"],
        ["0", "1", "7"],
        ["1", "2", "8"],
        ["2-3", "1", "8"],
        ["5", "1", "8"],
        ["all", "7", "44"],
    ]
