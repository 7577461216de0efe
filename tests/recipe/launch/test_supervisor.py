# SPDX-License-Identifier: Apache-2.0
"""The supervisor with a stand-in driver: however the run ends, it is said in one line and no process is left."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from recipe.clock import Clock
from recipe.launch.processes import end_all, marked, ray_workers
from recipe.launch.sampler import Sampler
from recipe.launch.supervisor import Alarm, Limits, supervise
from recipe.recorder import read_events
from recipe.runfile.environment import RUN_ID
from recipe.runfile.errors import LaunchError
from recipe.runfile.paths import REPO, RunPaths

# What every stand-in starts with: metrics as verl writes them, and children that outlive their parents.
PREAMBLE = """
import json, os, signal, subprocess, sys, time
def step(number, **more):
    data = {"timing_s/step": 0.1, "critic/score/mean": 0.5, "response_length/mean": 9.0, **more}
    with open("metrics.jsonl", "a") as file:
        file.write(json.dumps({"step": number, "data": data}) + "\\n")
def daemon(stubborn=False):
    ignore = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);" if stubborn else ""
    code = ignore + "print('up', flush=True); import time; time.sleep(300)"
    child = subprocess.Popen([sys.executable, "-c", code], start_new_session=True, stdout=subprocess.PIPE)
    child.stdout.readline()
    return child
"""


@pytest.fixture
def paths(tmp_path: Path) -> Iterator[RunPaths]:
    run_dir, temp = tmp_path / "run", tmp_path / "ray"
    (run_dir / "logs").mkdir(parents=True)
    temp.mkdir()
    made = RunPaths(run_dir, f"test-{os.getpid()}-{time.monotonic_ns()}", temp)
    yield made
    left = end_all(made.run_id, patience_s=0)
    assert not left


def run(
    paths: RunPaths, body: str, steps: int = 2, setup_s: float = 30, step_s: float = 30, alarm: Alarm | None = None
) -> str:
    out = io.StringIO()
    command = [sys.executable, "-c", PREAMBLE + textwrap.dedent(body)]
    environment = {**os.environ, RUN_ID: paths.run_id}
    supervise(command, environment, paths, steps, Limits(setup_s, step_s), Clock(out), alarm)
    return out.getvalue()


def failure(paths: RunPaths, body: str, **options: float) -> str:
    with pytest.raises(LaunchError) as caught:
        run(paths, body, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert str(paths.driver_log) in str(caught.value)
    assert marked(paths.run_id) == []
    assert not paths.ray_temp.exists()
    return str(caught.value)


def test_a_run_that_finishes(paths: RunPaths) -> None:
    text = run(
        paths,
        """
        print("ray init kwargs: {}", flush=True)
        daemon()
        time.sleep(2.5)
        with open("metrics.jsonl", "a") as file:
            file.write(json.dumps({"step": 0, "data": {"val-core/sums/acc/mean@8": 0.25}}) + "\\n")
        step(1)
        step(2, **{"val-core/sums/acc/mean@8": 0.5})
        """,
    )
    assert "set-up: starting Ray" in text
    assert "step 0 of 2  validation score 0.250" in text
    assert "step 1 of 2  reward 0.500  response length 9.0  0.1 s" in text
    assert "validation score 0.500" in text
    assert marked(paths.run_id) == []
    sampled = [event for event in read_events(paths.run_dir) if event["kind"] == "processes"]
    assert max(event["count"] for event in sampled) == 2
    assert max(event["rss"] for event in sampled) > 2**20


def test_a_driver_that_fails_is_said_with_its_cause(paths: RunPaths) -> None:
    text = failure(paths, "step(1); daemon(); raise ValueError('the batch is odd')")
    assert text.startswith("after step 1: the driver failed with exit code 1: ValueError: the batch is odd (log: ")


class FailingNodes:
    """Nodes whose launchers are heard once the driver has failed, or one of which is found to be silent then."""

    def __init__(self, failed: Path, silent: bool) -> None:
        self._failed, self._silent, self._asked = failed, silent, 0

    def __call__(self) -> str | None:
        self._asked += self._failed.exists()
        return "node h1: nothing was heard of it" if self._silent and self._asked > 8 else None

    def heard_since(self, moment: float) -> bool:
        return not self._silent


@pytest.mark.parametrize("silent", [True, False])
def test_a_driver_that_fails_is_held_against_what_is_known_of_the_nodes(
    paths: RunPaths, monkeypatch: pytest.MonkeyPatch, silent: bool
) -> None:
    """Collectives break long before a host that is cut off counts as gone; the host is what the person must be told."""
    monkeypatch.setattr("recipe.launch.supervisor.ALARM_S", 0.1)
    body = "step(1); open('failed', 'w'); raise RuntimeError('gloo: connection reset')"
    with pytest.raises(LaunchError) as caught:
        run(paths, body, alarm=FailingNodes(paths.run_dir / "failed", silent))
    if silent:
        assert str(caught.value) == "after step 1: node h1: nothing was heard of it"
    else:
        assert "after step 1: the driver failed with exit code 1: RuntimeError: gloo: conn" in str(caught.value)


def test_stubborn_grandchildren_are_ended_too(paths: RunPaths) -> None:
    text = failure(
        paths,
        """
        daemon(stubborn=True)
        code = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(300)'])"
        subprocess.run([sys.executable, "-c", code], start_new_session=True)
        sys.exit(3)
        """,
    )
    assert text.startswith("during set-up: the driver failed with exit code 3")


def test_a_killed_driver_is_said(paths: RunPaths) -> None:
    assert "the driver was killed by SIGKILL" in failure(paths, "daemon(); os.kill(os.getpid(), signal.SIGKILL)")


def test_a_driver_that_ends_early_has_failed(paths: RunPaths) -> None:
    assert "the driver ended after step 1 of 2" in failure(paths, "step(1)")


def test_silence_before_the_first_step_has_a_limit(paths: RunPaths) -> None:
    text = failure(paths, "daemon(); time.sleep(300)", setup_s=1.5)
    assert text.startswith("during set-up: no progress for 2 s")


def test_silence_between_steps_has_a_limit(paths: RunPaths) -> None:
    text = failure(paths, "step(1); time.sleep(300)", step_s=1.5)
    assert text.startswith("after step 1: no progress for 2 s")


def test_nothing_but_the_run_is_ended(paths: RunPaths) -> None:
    environment = {**os.environ, RUN_ID: paths.run_id + "0"}
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"], env=environment)
    try:
        failure(paths, "sys.exit(1)")
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


LAUNCHER = """
import os, sys
from pathlib import Path
from recipe.runfile.environment import RUN_ID
from recipe.runfile.paths import RunPaths
from recipe.runfile.errors import LaunchError
from recipe.clock import Clock
from recipe.launch.supervisor import Limits, supervise
run_dir, run_id, temp, body = sys.argv[1:]
paths = RunPaths(Path(run_dir), run_id, Path(temp))
try:
    supervise([sys.executable, "-c", body], {**os.environ, RUN_ID: run_id}, paths, 2, Limits(60, 60), Clock(sys.stdout))
except LaunchError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
"""


def start_launcher(paths: RunPaths) -> subprocess.Popen[str]:
    """A launcher of its own whose driver and daemon run; returns once both do."""
    body = PREAMBLE + "\ndaemon(); step(1); time.sleep(300)"
    command = [sys.executable, "-c", LAUNCHER, str(paths.run_dir), paths.run_id, str(paths.ray_temp), body]
    launcher = subprocess.Popen(command, cwd=REPO, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until(lambda: paths.metrics.exists() and len(marked(paths.run_id)) == 2)
    return launcher


def until(condition, limit_s: float = 20) -> None:
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "timed out"
        time.sleep(0.1)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stop_signals_end_the_run_cleanly(paths: RunPaths, number: signal.Signals, code: int) -> None:
    launcher = start_launcher(paths)
    launcher.send_signal(number)
    _, error = launcher.communicate(timeout=30)
    assert (launcher.returncode, error.strip()) == (code, f"stopped by {number.name}")
    assert marked(paths.run_id) == []
    assert not paths.ray_temp.exists()


def test_a_killed_launcher_leaves_nothing_running(paths: RunPaths) -> None:
    launcher = start_launcher(paths)
    watchdogs = [child for child in psutil.Process(launcher.pid).children() if "watchdog" in " ".join(child.cmdline())]
    launcher.kill()
    launcher.communicate(timeout=30)
    until(lambda: not marked(paths.run_id) and not paths.ray_temp.exists())
    assert len(watchdogs) == 1
    psutil.wait_procs(watchdogs, timeout=10)
    assert not any(process.is_running() for process in watchdogs)


# A raylet by its name, with a worker by its title that forks children, one after another: each carries the worker's
# title, lives half a second, and ends. Ended by the mark like everything else.
RAYLET = """#!/bin/bash
worker() { exec -a ray::WorkerDict.save bash -c 'while :; do (sleep 0.5; :) & wait; done'; }
worker &
wait
"""


@pytest.fixture
def raylet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("recipe.launch.supervisor.LOST_WORKER_S", 1.0)
    monkeypatch.setattr("recipe.launch.sampler.SAMPLE_S", 0.1)
    path = tmp_path / "raylet"
    path.write_text(RAYLET, encoding="utf-8")
    path.chmod(0o755)
    return path


def titled(paths: RunPaths) -> list[psutil.Process]:
    return [process for process in marked(paths.run_id) if process.cmdline()[:1] == ["ray::WorkerDict.save"]]


def test_what_a_worker_forks_is_no_worker(paths: RunPaths, raylet: Path) -> None:
    """Megatron-core's checkpoint writers are forked, carry the worker's title and end with the save."""
    seen: set[psutil.Process] = set()
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.05):
            with contextlib.suppress(psutil.Error):
                seen.update(titled(paths))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        run(paths, f"subprocess.Popen([{str(raylet)!r}]); step(1); time.sleep(4); step(2)")
    finally:
        done.set()
        watcher.join()
    assert len(seen) >= 4, "a worker, and children that carry its title"
    sampled = [event["rss_by_name"] for event in read_events(paths.run_dir)]
    assert any("fork of ray::WorkerDict" in names for names in sampled)
    assert any("ray::WorkerDict" in names for names in sampled)


def test_a_worker_that_disappears_is_noticed(paths: RunPaths, raylet: Path) -> None:
    killed: list[int] = []

    def kill_worker() -> None:
        until(lambda: ray_workers(marked(paths.run_id), "WorkerDict"))
        time.sleep(1)
        for process in ray_workers(marked(paths.run_id), "WorkerDict"):
            process.kill()
            killed.append(process.pid)

    killer = threading.Thread(target=kill_worker)
    killer.start()
    text = failure(paths, f"subprocess.Popen([{str(raylet)!r}]); step(1); time.sleep(300)")
    killer.join()
    assert len(killed) == 1
    assert f"after step 1: the driver goes on after worker {killed[0]} disappeared" in text


def test_a_forked_child_that_outlives_its_worker_is_ended_too(paths: RunPaths) -> None:
    fork = "import os, time; os.fork() and os._exit(0); os.setsid(); time.sleep(300)"
    failure(paths, f"subprocess.run([sys.executable, '-c', {fork!r}]); time.sleep(1); sys.exit(1)")


def test_halted_processes_are_ended_too(paths: RunPaths) -> None:
    began = time.monotonic()
    failure(paths, "daemon().send_signal(signal.SIGSTOP); sys.exit(1)")
    assert time.monotonic() - began < 20


def test_a_watchdog_that_is_killed_is_replaced_and_one_that_is_halted_is_not_waited_for(
    paths: RunPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recipe.launch.supervisor.WATCHDOG_S", 1.0)
    replaced: list[psutil.Process] = []

    def disturb() -> None:
        until(lambda: paths.metrics.exists() and watchdogs(paths))
        first = watchdogs(paths)[0]
        first.kill()
        until(lambda: [watchdog for watchdog in watchdogs(paths) if watchdog != first])
        replaced.extend(watchdog for watchdog in watchdogs(paths) if watchdog != first)
        replaced[0].suspend()

    disturber = threading.Thread(target=disturb)
    disturber.start()
    run(paths, "step(1); time.sleep(4); step(2)")
    disturber.join()
    assert len(replaced) == 1 and not replaced[0].is_running()


def watchdogs(paths: RunPaths) -> list[psutil.Process]:
    processes = []
    for process in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            if paths.run_id in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE:
                processes.append(process)
    return processes


def test_a_full_disk_under_what_only_describes_the_run_does_not_end_it(
    paths: RunPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recipe.launch.sampler.SAMPLE_S", 0.1)

    def full(path: Path, value: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("recipe.launch.sampler.append_line", full)
    samplers: list[bool] = []

    def look() -> None:
        until(paths.metrics.exists)
        time.sleep(1)
        samplers.extend(isinstance(thread, Sampler) for thread in threading.enumerate())

    looker = threading.Thread(target=look)
    looker.start()
    run(paths, "step(1); time.sleep(2.5); step(2)")
    looker.join()
    assert any(samplers), "the thread that notices lost workers goes on"


def test_the_events_hold_resident_bytes_by_process_name(paths: RunPaths) -> None:
    run(paths, "time.sleep(2.5); step(2)")
    lines = (paths.run_dir / "events" / "launcher.jsonl").read_text(encoding="utf-8").splitlines()
    event = json.loads(lines[0])
    assert sum(event["rss_by_name"].values()) == event["rss"]
