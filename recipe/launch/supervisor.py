# SPDX-License-Identifier: Apache-2.0
"""Runs the driver, watches it, and leaves no process behind, however it ends."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any, Protocol

import psutil

from recipe.launch.channel import BEAT_S, SILENCE_S
from recipe.launch.environment import RunPaths
from recipe.launch.errors import LaunchError
from recipe.launch.failure import cause
from recipe.launch.health import Health
from recipe.launch.processes import display_name, end_all, marked, resident_by_name
from recipe.launch.progress import Clock, Progress
from recipe.report.recorder import EVENTS, append_line

POLL_S = 0.25
SAMPLE_S = 2.0
# A driver whose worker is gone reports that by itself within seconds; after this long it hangs.
LOST_WORKER_S = 30.0
# A driver may notice sooner than the launchers that a node is gone; they know better why. This long is what one takes
# to see that its Ray has ended.
ALARM_S = 3.0
WORKER = "ray::WorkerDict"


@dataclass(frozen=True)
class Limits:
    """How long the run may stay silent, in seconds: until the first metrics, and from one step to the next."""

    setup_s: float
    step_s: float


class Alarm(Protocol):
    """What the launchers know of the nodes of a run."""

    def __call__(self) -> str | None:
        """What has happened to one; None while all is well."""

    def heard_since(self, moment: float) -> bool:
        """Whether the launcher of every node has been heard after `moment` (of time.monotonic)."""


class Interrupted(LaunchError):
    """The launcher was asked to stop; the exit code is the shell's for that signal."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.exit_code = 128 + number


STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def raise_on_stop_signals() -> None:
    """Make each stop signal raise `Interrupted` in the main thread."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Interrupted(number)

    for number in STOP_SIGNALS:
        signal.signal(number, stop)


def supervise(
    command: Sequence[str],
    environment: Mapping[str, str],
    paths: RunPaths,
    steps: int,
    limits: Limits,
    clock: Clock,
    alarm: Alarm | None = None,
    health: Health | None = None,
) -> None:
    """Run `command` to its end.

    Args:
        command: the driver.
        environment: its whole environment, with RECIPE_RUN_ID = `paths.run_id`.
        paths: where metrics and log are; `paths.ray_temp` is removed at the end.
        steps: the last step that must be in the metrics.
        limits: deadlines.
        clock: prints the progress.
        alarm: knows of the nodes of the run; given for a run of several.
        health: the watch over the training; default: none.

    Raises:
        TrainingStopped: the watch over the training ended the run.
        LaunchError: the driver failed, stalled or stopped early, or a node is lost. The message is one line with the
            cause.
        Interrupted: SIGINT, SIGTERM or SIGHUP arrived.

    In every case all processes of the run are gone when this returns; a watchdog sees to it when the launcher
    itself is killed.
    """
    with StopSignals() as stop, Watchdog(paths), open(paths.driver_log, "wb") as log:
        on_step = None if health is None else health.follow
        progress = Progress(paths.metrics, paths.driver_log, steps, clock, on_step)
        driver = subprocess.Popen(
            list(command),
            env=dict(environment),
            cwd=paths.run_dir,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        sampler = Sampler(paths)
        try:
            problem = _watch(driver, progress, sampler, limits, stop, alarm, health)
            progress.update()
        finally:
            sampler.stop()
            left = end_all(paths.run_id)
            driver.wait()
            progress.close()
            keep_ray_logs(paths)
            shutil.rmtree(paths.ray_temp, ignore_errors=True)
            paths.slots.unlink(missing_ok=True)
    if left:
        raise LaunchError(f"these processes of the run could not be ended: {', '.join(str(p.pid) for p in left)}")
    if stop.number is not None:
        raise Interrupted(stop.number)
    if health is not None and health.stopped is not None:
        raise health.stopped
    if problem is None and progress.step != steps:
        problem = f"the driver ended after step {progress.step or 0} of {steps}"
    if isinstance(problem, _Alarm):
        raise LaunchError(problem)
    if problem is not None:
        found = cause(paths.driver_log)
        raise LaunchError(f"{problem}{': ' + found if found else ''} (log: {paths.driver_log})")


class _Alarm(str):
    """What went wrong, where the driver's log does not tell the cause."""


def _watch(
    driver: subprocess.Popen[bytes],
    progress: Progress,
    sampler: Sampler,
    limits: Limits,
    stop: StopSignals,
    alarm: Alarm | None,
    health: Health | None,
) -> str | None:
    """Wait for the end of the driver; returns what went wrong.

    None when it ended by itself with exit code 0, or is to be ended: by a signal, or by the watch over the training.
    """
    while True:
        code = driver.poll()
        progress.update()
        if code == 0 or stop.number is not None or (health is not None and health.stopped is not None):
            return None
        if alarm is not None:
            lost = alarm() if code is None else _soon(alarm)
            if lost is not None:
                return _Alarm(f"{_place(progress)}: {lost}")
        if code is not None:
            return f"{_place(progress)}: the driver {_ended(code)}"
        silent, limit = time.monotonic() - progress.last_sign, limits.step_s if progress.started else limits.setup_s
        if silent > limit:
            return f"{_place(progress)}: no progress for {limit:.0f} s, the limit set in [run] of the run file"
        if sampler.lost_for() > LOST_WORKER_S:
            return f"{_place(progress)}: the driver goes on{sampler.lost_text()}"
        time.sleep(POLL_S)


def _soon(alarm: Alarm) -> str | None:
    """What the launchers say once each has been heard again, or has been silent for so long that it counts as gone."""
    start = time.monotonic()
    while (lost := alarm()) is None:
        now = time.monotonic()
        if now > start + ALARM_S and (alarm.heard_since(start) or now > start + SILENCE_S + BEAT_S):
            return None
        time.sleep(POLL_S)
    return lost


def _place(progress: Progress) -> str:
    return "during set-up" if progress.step is None else f"after step {progress.step}"


def _ended(code: int) -> str:
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"failed with exit code {code}"


class Sampler(threading.Thread):
    """Writes the resident memory of the run's processes to the events, and notices workers that disappear."""

    def __init__(self, paths: RunPaths) -> None:
        super().__init__(daemon=True)
        self._paths = paths
        self._done = threading.Event()
        self._workers: dict[int, psutil.Process] = {}
        self._lost: dict[int, float] = {}
        self.start()

    def run(self) -> None:
        file = self._paths.run_dir / EVENTS / "launcher.jsonl"
        while not self._done.wait(SAMPLE_S):
            processes = marked(self._paths.run_id)
            names = resident_by_name(processes)
            event: dict[str, Any] = {
                "time": time.time(),
                "pid": os.getpid(),
                "rank": None,
                "kind": "processes",
                "count": len(processes),
                "rss": sum(names.values()),
                "rss_by_name": names,
            }
            append_line(file, event)
            self._notice_lost(processes)

    def _notice_lost(self, processes: list[psutil.Process]) -> None:
        now = {process.pid: process for process in processes if _is_worker(process)}
        for pid in self._workers.keys() - now.keys():
            self._lost.setdefault(pid, time.monotonic())
        self._workers = now

    def lost_for(self) -> float:
        """Seconds since the first worker disappeared; 0 when none did."""
        return time.monotonic() - min(self._lost.values()) if self._lost else 0.0

    def lost_text(self) -> str:
        return f" after worker {', '.join(str(pid) for pid in self._lost)} disappeared" if self._lost else ""

    def stop(self) -> None:
        self._done.set()
        self.join()


def _is_worker(process: psutil.Process) -> bool:
    try:
        return display_name(process).startswith(WORKER)
    except psutil.Error:
        return False


class StopSignals:
    """Within the block SIGINT, SIGTERM and SIGHUP only set `number`, so that the end is always an orderly one."""

    def __init__(self) -> None:
        self.number: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in STOP_SIGNALS}
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.number = self.number or number

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


class Watchdog:
    """A process that outlives this one just long enough to end the run (see `recipe.launch.watchdog`)."""

    def __init__(self, paths: RunPaths) -> None:
        self._command = [sys.executable, "-m", "recipe.launch.watchdog", paths.run_id, str(paths.ray_temp)]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Watchdog:
        from recipe.launch.environment import REPO

        self._process = subprocess.Popen(
            self._command,
            cwd=REPO,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        return self

    def __exit__(self, *exception: object) -> None:
        assert self._process is not None and self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def keep_ray_logs(paths: RunPaths) -> None:
    """Copy Ray's own logs (workers' output, raylet) beside the driver's log, without its event and metrics files."""
    source = paths.ray_temp / "session_latest" / "logs"
    if not source.is_dir():
        return
    target = paths.run_dir / "logs" / "ray"
    target.mkdir(parents=True, exist_ok=True)
    for path in source.iterdir():
        if path.suffix in (".out", ".err", ".log") and path.is_file() and path.stat().st_size:
            shutil.copyfile(path, target / path.name)
