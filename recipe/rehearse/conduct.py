# SPDX-License-Identifier: Apache-2.0
"""Rehearses the stages of a run, each in a process of its own, and keeps what each has counted."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from recipe.rehearse.job import TITLES, Job, StageResult
from recipe.rehearse.jobs import environment, make_description_jobs, make_job, with_descriptions
from recipe.rehearse.model_files import make_model
from recipe.rehearse.subject import Rehearsed
from recipe.runfile.errors import LaunchError
from recipe.signals import die_with_parent
from recipe.sizes import size_text
from recipe.text import plain, printable

Say = Callable[[str], None]
# Begins the command line of the process that forks those of the stages; the descriptor for progress follows.
COMMAND = (sys.executable, "-m", "recipe.rehearse.stage_process")
PATIENCE_S = 3.0


@dataclass(frozen=True)
class Place:
    """Where a rehearsal keeps a stage's files."""

    directory: Path
    stage: int
    name: str = "stage"

    def file(self, end: str) -> Path:
        return self.directory / f"{self.name}_{self.stage}{end}"


def rehearse_stages(
    run: Rehearsed, directory: Path, say: Say, at_once: int = 1, command: Sequence[str] = COMMAND
) -> list[StageResult]:
    """What each stage's process counted; those that are in `directory` from an earlier rehearsal are not done again.

    Args:
        run: what is rehearsed.
        directory: for jobs, results and logs.
        say: takes one line about what goes on.
        at_once: processes at a time.
        command: of the process that forks those of the stages.

    Raises:
        LaunchError: a process could not do what it was asked.
    """
    model = directory / "model"
    make_model(run.given, model)
    results: dict[int, StageResult] = {}
    waiting = []
    descriptions, files = [], []
    if run.describes_stages:
        for job in make_description_jobs(run, model, directory):
            place = Place(directory, job.stage, "tensors_of")
            files.append(place.file(f".{job.key[:12]}.tensors.json"))
            if not files[-1].is_file() and files[-1] not in files[:-1]:
                given = environment(run, job.stage, model, directory)
                descriptions.append((place, with_descriptions(job, files[-1:]), given))
    for stage in run.stages:
        place, job = Place(directory, stage), with_descriptions(make_job(run, stage, model, directory), files)
        known = StageResult.read(place.file(".json"), job.key)
        if known is None:
            waiting.append((place, job, environment(run, stage, model, directory)))
        else:
            say(f"stage {stage}: as counted before, in {place.file('.json')}")
            results[stage] = known
    if waiting:
        with _Processes(say, command, waiting[0][2], directory / "stages.log") as processes:
            _conduct(processes, descriptions, at_once)
            results |= _conduct(processes, waiting, at_once)
    return [results[stage] for stage in run.stages]


def seconds_of_stages(run: Rehearsed, directory: Path, results: Sequence[StageResult]) -> float:
    """Wall time that the processes of these stages took, whenever they ran, with those that described the tensors."""
    described = range(run.planned.layout.actor_pipeline) if run.describes_stages else ()
    places = [Place(directory, stage, "tensors_of").file(".json") for stage in described]
    of_descriptions = [result for place in places if (result := StageResult.read(place, None)) is not None]
    return sum(result.wall_s for result in (*of_descriptions, *results))


def _conduct(
    processes: _Processes, waiting: Sequence[tuple[Place, Job, Mapping[str, str]]], at_once: int
) -> dict[int, StageResult]:
    """Have all of them done, so many at a time; the results by stage."""
    results, left = {}, list(waiting)
    while left or processes.running:
        while left and len(processes.running) < at_once:
            processes.start(*left.pop(0))
        for place, job in processes.ended():
            result = StageResult.read(place.file(".json"), job.key)
            if result is None:
                raise LaunchError(f"stage {place.stage}: {processes.complaint(place)}; {place.file('.log')}")
            results[place.stage] = result
    return results


class _Processes:
    """The process that forks those of the stages; all of them are ended with the block."""

    def __init__(self, say: Say, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self.running: dict[int, tuple[Place, Job]] = {}
        self._say, self._log = say, log
        self._errors: dict[int, str] = {}
        # Short, as sockets are made in it.
        self._scratch = tempfile.TemporaryDirectory(prefix="rehearse-")
        self._environment = {**environment, "TMPDIR": self._scratch.name}
        reading, writing = os.pipe()
        with open(log, "wb") as file:
            # Not in this repository: Python would look there first, and it may hold copied trees of the upstreams.
            self._process = subprocess.Popen(
                [*command, str(writing)], env=self._environment, cwd=self._scratch.name, stdin=subprocess.PIPE,
                stdout=file, stderr=file, pass_fds=(writing,), start_new_session=True, preexec_fn=die_with_parent,
            )  # fmt: skip
        os.close(writing)
        say("importing verl, Megatron-core and vLLM")
        self._progress = os.fdopen(reading, "rb", buffering=0)
        self._rest = b""

    def __enter__(self) -> _Processes:
        return self

    def __exit__(self, *exception: object) -> None:
        assert self._process.stdin is not None
        if exception[0] is not None:
            self._signal(signal.SIGTERM)
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()  # no more requests
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(PATIENCE_S)
        self._signal(signal.SIGKILL)
        self._process.wait()
        self._progress.close()
        self._scratch.cleanup()

    def _signal(self, number: signal.Signals) -> None:
        """To the process and those that it has forked: they are a group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def start(self, place: Place, job: Job, environment: Mapping[str, str]) -> None:
        """Have a stage rehearsed."""
        place.file(".json").unlink(missing_ok=True)
        place.file(".log").unlink(missing_ok=True)
        job_file = place.file(".job.json")
        job.write(job_file)
        own = {name: value for name, value in environment.items() if self._environment.get(name) != value}
        request = {
            "stage": place.stage, "job": str(job_file), "result": str(place.file(".json")),
            "log": str(place.file(".log")), "environment": {
                **own, "TMPDIR": self._scratch.name, "NPU_SIM_SLOTS": str(Path(self._scratch.name) / job_file.stem),
            },
        }  # fmt: skip
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended, which is noticed where its progress is read
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        self.running[place.stage] = (place, job)
        doing = (
            "its tensors are described to the others" if job.only_describe else f"die {job.rank} of {job.world_size}"
        )
        self._say(f"stage {place.stage}: {doing}")

    def ended(self) -> list[tuple[Place, Job]]:
        """Say what there is to say of those that run; returns those that have come to their end meanwhile.

        Raises:
            LaunchError: the process that forks them is gone.
        """
        read = self._progress.read(65536)
        if not read:
            raise LaunchError(f"the process of the stages has ended: {_last_line(self._log)}; {self._log}")
        *lines, self._rest = (self._rest + read).split(b"\n")
        out = []
        for told in map(json.loads, lines):
            stage = told["stage"]
            if "ended" in told:
                if os.WIFSIGNALED(told["ended"]):
                    name = signal.Signals(os.WTERMSIG(told["ended"])).name
                    self._errors[stage] = f"its process was ended by {name}"
                out.append(self.running.pop(stage))
            elif "error" in told:
                self._errors[stage] = f"{_title(told)}: {told['error']}"
            elif text := progress_text(told):
                self._say(f"stage {stage}: {text}")
        return out

    def complaint(self, place: Place) -> str:
        """Why a process has left no result: what it said last, or the last line of its log."""
        return printable(self._errors.get(place.stage) or _last_line(place.file(".log")))


def _last_line(log: Path) -> str:
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    said = [plain(line) for line in lines if line.strip()]
    return printable(said[-1]) if said else "without a word"


def progress_text(told: Mapping[str, object]) -> str:
    """A line of progress of a stage's process in words; empty for what need not be said."""
    title = _title(told)
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


def _title(told: Mapping[str, object]) -> str:
    """The phase of which something is told."""
    return TITLES.get(str(told["phase"]), str(told["phase"]))


def _number(value: object) -> float:
    assert isinstance(value, (int, float)), value
    return float(value)
