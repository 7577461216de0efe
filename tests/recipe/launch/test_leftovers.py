# SPDX-License-Identifier: Apache-2.0
"""The note of what a launch has running: the next launch ends what is left, and nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from recipe.launch.leftovers import end_former, noted
from recipe.launch.processes import marked
from recipe.runfile.environment import RUN_ID
from recipe.runfile.errors import LaunchError
from recipe.runfile.paths import RunPaths


@pytest.fixture
def paths(tmp_path: Path) -> RunPaths:
    return RunPaths(tmp_path / "sim", f"test-{os.getpid()}-{tmp_path.name}", tmp_path / "temp")


@pytest.fixture
def left(paths: RunPaths) -> Iterator[subprocess.Popen[bytes]]:
    """A process of the run."""
    command = [sys.executable, "-c", "import time; time.sleep(300)"]
    process = subprocess.Popen(command, env={**os.environ, RUN_ID: paths.run_id})
    yield process
    process.kill()
    process.wait()


def file(paths: RunPaths) -> Path:
    return paths.run_dir.with_name(".sim.going")


def killed(paths: RunPaths, **changes: object) -> None:
    """The note of a launcher that is gone."""
    with noted(paths):
        value = json.loads(file(paths).read_text())
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    value["launcher"]["pid"] = ended.pid
    file(paths).write_text(json.dumps(value | changes))


def test_what_was_left_is_ended_once(paths: RunPaths, left: subprocess.Popen[bytes]) -> None:
    killed(paths)
    lines: list[str] = []
    end_former(paths.run_dir, lines.append)
    assert lines == ["the last launch of this run was killed: ending what it has left running (one process)"]
    left.wait(10)
    assert marked(paths.run_id) == [] and not file(paths).exists()
    end_former(paths.run_dir, lines.append)
    assert len(lines) == 1


def test_an_orderly_end_leaves_no_note(paths: RunPaths) -> None:
    with noted(paths):
        assert file(paths).is_file()
    assert not file(paths).exists()


def test_while_something_is_left_the_note_is_too(paths: RunPaths, left: subprocess.Popen[bytes]) -> None:
    with noted(paths):
        pass
    assert file(paths).is_file()


def test_a_launcher_at_work_is_left_alone(paths: RunPaths, left: subprocess.Popen[bytes]) -> None:
    with noted(paths), pytest.raises(LaunchError, match=rf"another launcher \(pid {os.getpid()}\) is at work"):
        end_former(paths.run_dir, print)
    assert left.poll() is None


def test_another_machines_launch_is_only_named(paths: RunPaths, left: subprocess.Popen[bytes]) -> None:
    killed(paths, host="elsewhere")
    lines: list[str] = []
    end_former(paths.run_dir, lines.append)
    assert left.poll() is None and len(lines) == 1
    assert lines[0].startswith("warning: the last launch of this run was on elsewhere and did not end in order")


@pytest.mark.parametrize(
    "text",
    ["", "{", "null", "[1]", "[" * 10**5, "\xff\xfe", '{"launcher": 1}', '{"launcher": {"pid": 1e400, "created": 0}}',
     '{"host": 1, "run_id": "x", "temp": "/", "launcher": {"pid": 1, "created": 1.0}}'],
)  # fmt: skip
def test_a_note_of_another_form_is_none(paths: RunPaths, text: str) -> None:
    file(paths).write_bytes(text.encode("latin-1"))
    end_former(paths.run_dir, pytest.fail)
