# SPDX-License-Identifier: Apache-2.0
"""Runs the driver, watches it, and leaves no process behind, however it ends."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from recipe.clock import Clock
from recipe.launch.channel import BEAT_S, SILENCE_S
from recipe.launch.failure import cause, cause_in_log, end_of_records, expect_record
from recipe.launch.health import Health
from recipe.launch.leftovers import WATCHDOG
from recipe.launch.processes import end_all
from recipe.launch.progress import Progress
from recipe.launch.ray_logs import keep_ray_logs
from recipe.launch.sampler import Sampler
from recipe.runfile.errors import Interrupted, LaunchError
from recipe.runfile.paths import REPO, RunPaths
from recipe.stopping import StopSignals

POLL_S = 0.25
# A driver whose worker is gone reports that by itself within seconds; after this long it hangs.
LOST_WORKER_S = 30.0
# A driver may notice sooner than the launchers that a node is gone, but they know why. A launcher takes this long to
# see that its Ray has ended.
ALARM_S = 3.0
# How long an end that should be immediate may take on a loaded machine.
WATCHDOG_S = 10.0


@dataclass(frozen=True)
class Limits:
    """How long the run may stay silent, in seconds: until the first metrics, and from one step to the next."""

    setup_s: float
    step_s: float


class Alarm(Protocol):
    """The launchers' knowledge of the nodes of a run, as the supervisor asks for it."""

    def __call__(self) -> str | None:
        """What has happened to a node; None while all is well."""

    def heard_since(self, moment: float) -> bool:
        """Whether the launcher of every node has been heard after `moment` (of time.monotonic)."""


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
        paths: where metrics and log are; `paths.temp` is removed at the end.
        steps: the last step that must be in the metrics.
        limits: deadlines.
        clock: prints the progress.
        alarm: knows of the nodes of the run; given for a run of several.
        health: the watch over the training; default: none.

    Raises:
        TrainingStopped: the watch over the training ended the run.
        LaunchError: the driver failed, stalled or stopped early, or a node is lost. The message is one line with the
            cause.
        Interrupted: SIGINT or SIGTERM arrived.

    In every case all processes of the run are gone when this returns; a watchdog sees to it when the launcher
    itself is killed.
    """
    with StopSignals() as stop, Watchdog(paths) as watchdog, open(paths.driver_log, "wb") as log:
        expect_record(paths)
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
            problem = _watch(driver, progress, sampler, limits, stop, alarm, watchdog, health)
            code = driver.poll()
            progress.update()
        finally:
            sampler.stop()
            remaining = end_all(paths.run_id)
            with contextlib.suppress(subprocess.TimeoutExpired):
                driver.wait(0 if remaining else None)
            progress.close()
            end_of_records(paths)
            keep_ray_logs(paths)
            shutil.rmtree(paths.temp, ignore_errors=True)
            paths.slots.unlink(missing_ok=True)
    if remaining:
        raise LaunchError(f"these processes of the run could not be ended: {', '.join(str(p.pid) for p in remaining)}")
    if stop.number is not None:
        raise Interrupted(stop.number)
    if health is not None and health.stopped is not None:
        raise health.stopped
    if problem is None and progress.step != steps:
        problem = f"the driver ended after step {progress.step or 0} of {steps}"
    if isinstance(problem, _NodeProblem):
        raise LaunchError(problem)
    if problem is not None:
        # Only a driver that failed by itself has left a cause; one that we or a signal ended has none.
        reason = cause(paths) or (cause_in_log(paths.driver_log) if code is not None and code > 0 else None)
        raise LaunchError(f"{problem}{': ' + reason if reason else ''} (log: {paths.driver_log})")


class _NodeProblem(str):
    """What went wrong with a node; the driver's log does not tell its cause."""


def _watch(
    driver: subprocess.Popen[bytes],
    progress: Progress,
    sampler: Sampler,
    limits: Limits,
    stop: StopSignals,
    alarm: Alarm | None,
    watchdog: Watchdog,
    health: Health | None,
) -> str | None:
    """Wait for the end of the driver; returns what went wrong.

    None when it ended by itself with exit code 0, or is to be ended: by a signal, or by the watch over the training.
    """
    while True:
        code = driver.poll()
        watchdog.tend()
        progress.update()
        if code == 0 or stop.number is not None or (health is not None and health.stopped is not None):
            return None
        if alarm is not None:
            lost = alarm() if code is None else _soon(alarm)
            if lost is not None:
                return _NodeProblem(f"{_place(progress)}: {lost}")
        if code is not None:
            return f"{_place(progress)}: the driver {_ended(code)}"
        silent, limit = time.monotonic() - progress.last_sign, limits.step_s if progress.started else limits.setup_s
        if silent > limit:
            return f"{_place(progress)}: no progress for {limit:.0f} s, the limit set in [run] of the run file"
        if sampler.lost_for() > LOST_WORKER_S:
            return f"{_place(progress)}: the driver goes on{sampler.lost_text()}"
        time.sleep(POLL_S)


def _soon(alarm: Alarm) -> str | None:
    """Wait until each launcher has been heard again, or has been silent for long enough to count as gone; returns the
    alarm."""
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


class Watchdog:
    """A process that outlives this one just long enough to end the run (see `recipe.launch.watchdog`)."""

    def __init__(self, paths: RunPaths) -> None:
        self._command = [sys.executable, "-m", WATCHDOG, paths.run_id, str(paths.temp)]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Watchdog:
        self.tend()
        return self

    def tend(self) -> None:
        """Start the watchdog, and start it again when it has ended."""
        if self._process is None or self._process.poll() is not None:
            self._close()
            self._process = subprocess.Popen(
                self._command,
                cwd=REPO,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )

    def __exit__(self, *exception: object) -> None:
        assert self._process is not None
        self._close()
        try:
            self._process.wait(WATCHDOG_S)
        except subprocess.TimeoutExpired:  # it was halted, and has nothing left to do
            self._process.kill()
            self._process.wait()

    def _close(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
