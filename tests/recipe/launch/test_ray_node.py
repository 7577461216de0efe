# SPDX-License-Identifier: Apache-2.0
"""One node's Ray: what is asked of its packages before anything starts, and what happens when it starts too slowly."""

from __future__ import annotations

import importlib.metadata
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from recipe.__main__ import main
from recipe.launch import ray_node
from recipe.launch.processes import end_all, marked
from recipe.launch.ray_node import RayNode
from recipe.launch.ray_start import TRIES, make_retry, patiently
from recipe.runfile.environment import RUN_ID
from recipe.runfile.errors import LaunchError
from tests.scripts.slow_ray import SLOW_RAY

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


NUMBERS = [
    ("--deadline", "0"),
    ("--deadline", "9" * 20),
    ("--ports", "-5"),
    ("--ports", "70000"),
    ("--steps", "9" * 20),
]


@pytest.mark.parametrize(("option", "value"), NUMBERS, ids=str)
def test_a_number_beyond_its_limits_is_one_line(
    two: Path, option: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["node", str(two), option, value]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"error: {option} is {value}; expected a") and told.count("\n") == 1


@pytest.mark.parametrize("head", ["192.0.2.1:6379", "[::1]", "fd00::1"])
def test_a_head_that_is_no_address_is_one_line(two: Path, head: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["node", str(two), "--head", head, "--no-preflight"]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"error: the head's address {head!r} ") and told.count("\n") == 1


@pytest.fixture
def run_id(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(ray_node, "PAUSE_S", 0.1)
    mark = f"test-{os.getpid()}-{time.monotonic_ns()}"
    yield mark
    end_all(mark)


def start(tmp_path: Path, run_id: str, failures: int) -> RayNode:
    """A stand-in for `ray start` that is too slow `failures` times, and leaves a daemon and files each time."""
    (tmp_path / "ray").mkdir()
    command = [sys.executable, "-c", SLOW_RAY, str(tmp_path / "ray"), str(tmp_path / "starts"), str(failures)]
    return RayNode(command, {**os.environ, RUN_ID: run_id}, tmp_path / "logs" / "ray-start.log")


def test_a_ray_that_ends_by_its_own_limit_is_started_again(tmp_path: Path, run_id: str) -> None:
    ray, lines = start(tmp_path, run_id, failures=2), list[str]()
    ray.wait_started(retry=make_retry(run_id, tmp_path / "ray", 60, lines.append))
    assert ray.started and ray.problem() is None
    assert lines == [f"Ray's own limit of 30 s has ended its start; starting it again (try {n})" for n in (2, 3)]
    # Of the tries before nothing is left but their logs.
    assert [path.name for path in (tmp_path / "ray").iterdir()] == ["session_3"]
    assert len(marked(run_id)) == 2
    assert {path.name for path in (tmp_path / "logs").iterdir()} == {
        "ray-start.log", "ray-start.1.log", "ray-start.2.log",
    }  # fmt: skip


def test_it_is_not_tried_for_ever(tmp_path: Path, run_id: str) -> None:
    ray = start(tmp_path, run_id, failures=10**6)
    with pytest.raises(LaunchError, match="did not start: Exception: The current node timed out during startup"):
        ray.wait_started(retry=make_retry(run_id, tmp_path / "ray", 1.5, lambda line: None))
    assert int((tmp_path / "starts").read_text()) >= 2


@pytest.mark.parametrize("alarm", [lambda: "the run is over", lambda: None])
def test_another_end_is_not_tried_again(tmp_path: Path, run_id: str, alarm: Callable[[], str | None]) -> None:
    (tmp_path / "ray").mkdir()
    command = [sys.executable, "-c", "import time; time.sleep(1); raise OSError('no room')"]
    ray = RayNode(command, {**os.environ, RUN_ID: run_id}, tmp_path / "logs" / "ray-start.log")
    with pytest.raises(LaunchError, match=r"the run is over|its Ray did not start: OSError: no room"):
        ray.wait_started(alarm, make_retry(run_id, tmp_path / "ray", 60, lambda line: pytest.fail(line)))


def test_a_run_that_is_over_is_not_waited_for(tmp_path: Path, run_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_node, "PAUSE_S", 1e9)
    ray, lines = start(tmp_path, run_id, failures=1), list[str]()
    with pytest.raises(LaunchError, match="the run is over"):
        ray.wait_started(
            lambda: "the run is over" if lines else None, make_retry(run_id, tmp_path / "ray", 60, lines.append)
        )  # fmt: skip


LIMIT = "Exception: The current node timed out during startup. This could happen because"


@pytest.mark.parametrize(
    ("log", "times"),
    [
        (f"Traceback (most recent call last):\n{LIMIT}\n", TRIES),
        (f"(TaskRunner pid=7) {LIMIT}\n", 1),  # what a model wrote, in a line of the process that printed it
        ("ValueError: something else\n", 1),
    ],
)
def test_a_trainer_whose_own_ray_was_too_slow_is_started_again(tmp_path: Path, log: str, times: int) -> None:
    tried, lines = list[int](), list[str]()

    def run() -> None:
        tried.append(1)
        (tmp_path / "driver.log").write_text(log, encoding="utf-8")
        raise LaunchError("during set-up: the driver failed with exit code 1")

    with pytest.raises(LaunchError, match="during set-up"):
        patiently(run, tmp_path / "driver.log", lines.append)
    assert (len(tried), len(lines)) == (times, times - 1)


def test_a_trainer_that_starts_the_second_time_has_started(tmp_path: Path) -> None:
    tried, lines = list[int](), list[str]()

    def run() -> None:
        tried.append(1)
        (tmp_path / "driver.log").write_text(f"{LIMIT}\n", encoding="utf-8")
        if len(tried) == 1:
            raise LaunchError("during set-up: the driver failed with exit code 1")

    patiently(run, tmp_path / "driver.log", lines.append)
    assert lines == [f"Ray's own limit of 30 s has ended its start; starting the trainer again (try 2 of {TRIES})"]
