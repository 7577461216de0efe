# SPDX-License-Identifier: Apache-2.0
"""Rehearses the stages of a run, each in a process of its own, and keeps what each has counted."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from recipe.launch.processes import die_with_parent
from recipe.rehearse.job import Job, StageResult
from recipe.rehearse.jobs import environment, make_job
from recipe.rehearse.model_files import make_model
from recipe.rehearse.subject import Rehearsed
from recipe.runfile.errors import LaunchError
from recipe.runfile.paths import REPO
from recipe.sizes import size_text
from recipe.text import plain, printable

Say = Callable[[str], None]
# Begins the command line of a stage's process; files and the descriptor for its progress follow.
COMMAND = (sys.executable, "-m", "recipe.rehearse.stage_process")
PATIENCE_S = 3.0
TITLES = {"build": "building", "log_prob": "old log-prob", "ref": "reference", "update": "update", "rollout": "rollout"}


@dataclass(frozen=True)
class Place:
    """Where a rehearsal keeps a stage's files."""

    directory: Path
    stage: int

    def file(self, end: str) -> Path:
        return self.directory / f"stage_{self.stage}{end}"


def rehearse_stages(
    run: Rehearsed, directory: Path, say: Say, at_once: int = 1, command: Sequence[str] = COMMAND
) -> list[StageResult]:
    """What each stage's process counted; those that are in `directory` from an earlier rehearsal are not done again.

    Args:
        run: what is rehearsed.
        directory: for jobs, results and logs.
        say: takes one line about what goes on.
        at_once: processes at a time.
        command: of a stage's process.

    Raises:
        LaunchError: a process could not do what it was asked.
    """
    model = directory / "model"
    make_model(run.given, model)
    results: dict[int, StageResult] = {}
    waiting = []
    for stage in run.stages:
        place, job = Place(directory, stage), make_job(run, stage, model, directory)
        known = StageResult.read(place.file(".json"), job.key)
        if known is None:
            waiting.append((place, job, environment(run, stage, model, directory)))
        else:
            say(f"stage {stage}: as counted before, in {place.file('.json')}")
            results[stage] = known
    with _Processes(say, command) as processes:
        while waiting or processes.running:
            while waiting and len(processes.running) < at_once:
                processes.start(*waiting.pop(0))
            for place, job in processes.ended():
                result = StageResult.read(place.file(".json"), job.key)
                if result is None:
                    raise LaunchError(f"stage {place.stage}: {processes.complaint(place)}; {place.file('.log')}")
                results[place.stage] = result
    return [results[stage] for stage in run.stages]


@dataclass
class _Running:
    process: subprocess.Popen[bytes]
    pipe: IO[bytes]
    job: Job
    scratch: tempfile.TemporaryDirectory[str]
    rest: bytes = b""

    def close(self) -> None:
        """After the process has ended."""
        self.pipe.close()
        self.scratch.cleanup()


class _Processes:
    """The processes that run; all of them are ended with the block."""

    def __init__(self, say: Say, command: Sequence[str]) -> None:
        self.running: dict[Place, _Running] = {}
        self._say, self._command = say, command
        self._selector = selectors.DefaultSelector()
        self._errors: dict[Place, str] = {}

    def __enter__(self) -> _Processes:
        return self

    def __exit__(self, *exception: object) -> None:
        for one in self.running.values():
            one.process.terminate()
        end = time.monotonic() + PATIENCE_S
        for one in self.running.values():
            try:
                one.process.wait(max(0.0, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                one.process.kill()
                one.process.wait()
            one.close()
        self._selector.close()

    def start(self, place: Place, job: Job, environment: Mapping[str, str]) -> None:
        place.file("").mkdir(exist_ok=True)
        # Short, as sockets are made in it.
        scratch = tempfile.TemporaryDirectory(prefix="rehearse-")
        place.file(".json").unlink(missing_ok=True)
        job_file = place.file(".job.json")
        job.write(job_file)
        reading, writing = os.pipe()
        with open(place.file(".log"), "wb") as log:
            process = subprocess.Popen(
                [*self._command, str(job_file), str(place.file(".json")), str(writing)],
                env={**environment, "TMPDIR": scratch.name}, cwd=REPO, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                pass_fds=(writing,), start_new_session=True, preexec_fn=die_with_parent,
            )  # fmt: skip
        os.close(writing)
        pipe = os.fdopen(reading, "rb", buffering=0)
        self.running[place] = _Running(process, pipe, job, scratch)
        self._selector.register(pipe, selectors.EVENT_READ, place)
        self._say(f"stage {place.stage}: die {job.rank} of {job.world_size}")

    def ended(self) -> list[tuple[Place, Job]]:
        """Say what there is to say of those that run; returns those that have come to their end meanwhile."""
        out = []
        for key, _ in self._selector.select(timeout=1.0):
            place: Place = key.data
            one = self.running[place]
            read = one.pipe.read(65536)
            *lines, one.rest = (one.rest + (read or b"")).split(b"\n")
            for line in lines:
                self._tell(place, json.loads(line))
            if not read:  # closed: it has ended, or is about to
                self._selector.unregister(one.pipe)
                one.process.wait()
                one.close()
                del self.running[place]
                out.append((place, one.job))
        return out

    def _tell(self, place: Place, told: Mapping[str, object]) -> None:
        if "error" in told:
            self._errors[place] = str(told["error"])
        text = progress_text(told)
        if text:
            self._say(f"stage {place.stage}: {text}")

    def complaint(self, place: Place) -> str:
        """Why a process has left no result: what it said last, or the last line of its log."""
        if place in self._errors:
            return printable(self._errors[place])
        try:
            lines = place.file(".log").read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            lines = []
        said = [plain(line) for line in lines if line.strip()]
        return printable(said[-1]) if said else "its process ended without a word"


def progress_text(told: Mapping[str, object]) -> str:
    """A line of progress of a stage's process in words; empty for what need not be said."""
    title = TITLES.get(str(told["phase"]), str(told["phase"]))
    if "peak" in told:
        return (
            f"{title}: at most {size_text(_number(told['peak']))}, {_number(told['operators']):,.0f} operators in "
            f"{_number(told['seconds']):.1f} s"
        )
    if "rate" in told:
        return (
            f"{title} goes on, {_number(told['rate']):,.0f} operators a second, "
            f"{size_text(_number(told['rss']))} of this machine's memory"
        )
    return ""


def _number(value: object) -> float:
    assert isinstance(value, (int, float)), value
    return float(value)
