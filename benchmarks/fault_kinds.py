# SPDX-License-Identifier: Apache-2.0
"""What `benchmarks/faults.py` does to a run: faults, the moments they come at, and what of a run they hit."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

SETUP, STEP, SAVE = "set-up", "step", "save"
# Kinds of damage to one file of the newest checkpoint, done after the run was killed; an earlier checkpoint is whole.
DAMAGES = ("truncated", "zeroed", "removed")


@dataclass(frozen=True)
class Fault:
    """One kind of fault. `exits` are the exit codes that the disturbed launcher may end with.

    `roles`: processes that get the signal `number`. `damage`: done to files after the driver was killed. `fills_disk`:
    the file system of the run directory has no byte left until the launcher has ended.
    """

    name: str
    exits: frozenset[int]
    roles: tuple[str, ...] = ()
    number: int = 0
    damage: str | None = None
    fills_disk: bool = False
    moments: tuple[str, ...] = (SETUP, STEP, SAVE)


@dataclass(frozen=True)
class Trial:
    """A fault, when it comes (`after_step` for the moments STEP and SAVE), and how far into that moment (0 to 1)."""

    fault: Fault
    moment: str
    after_step: int
    share: float

    def __str__(self) -> str:
        when = "in set-up" if self.moment == SETUP else f"in {self.moment} {self.after_step + 1}"
        return f"{self.fault.name}, {when} at {self.share:.2f}"


# What the fault's processes do to the launcher that watches them. A process that is stopped does nothing more, so that
# the launcher ends the run at its deadline; one whose loss the run gets over lets it finish.
_ENDS, _MAY_END, _GOES_ON = frozenset({1}), frozenset({0, 1}), frozenset({0})
_OF_KILLED = {
    "driver": _ENDS, "task runner": _ENDS, "worker": _ENDS, "grading worker": _MAY_END, "raylet": _ENDS, "gcs": _ENDS,
    "launcher": frozenset({-signal.SIGKILL}), "watchdog": _GOES_ON,
}  # fmt: skip
_OF_STOPPED = {
    "driver": _MAY_END, "task runner": _ENDS, "worker": _ENDS, "grading worker": _MAY_END, "raylet": _MAY_END,
    "gcs": _MAY_END, "launcher": _GOES_ON, "watchdog": _GOES_ON,
}  # fmt: skip
_WITH_STEPS = (STEP, SAVE)


def faults(with_disk: bool) -> list[Fault]:
    """Every kind of fault; the full disk only where a small file system can be made."""
    killed = [
        Fault(f"kill -9 {role}", exits, (role,), signal.SIGKILL, moments=_moments(role))
        for role, exits in _OF_KILLED.items()
    ]
    stopped = [
        Fault(f"SIGSTOP {role}", exits, (role,), signal.SIGSTOP, moments=_moments(role))
        for role, exits in _OF_STOPPED.items()
    ]
    launcher_and_driver = Fault(
        "kill -9 launcher and watchdog", frozenset({-signal.SIGKILL}), ("watchdog", "launcher"), signal.SIGKILL
    )
    damaged = [
        Fault(f"checkpoint file {what}", _ENDS, ("driver",), signal.SIGKILL, damage=what, moments=_WITH_STEPS)
        for what in (*DAMAGES, "latest emptied")
    ]
    torn = Fault("metrics torn", _ENDS, ("driver",), signal.SIGKILL, damage="metrics torn", moments=_WITH_STEPS)
    disk = [Fault("disk full", _ENDS, fills_disk=True)] if with_disk else []
    return [*killed, *stopped, launcher_and_driver, *damaged, torn, *disk]


def _moments(role: str) -> tuple[str, ...]:
    """Moments at which a fault can come; processes that grade are only there from the first validation on."""
    return _WITH_STEPS if role == "grading worker" else (SETUP, STEP, SAVE)


def draw(count: int, seed: int, steps: int, with_disk: bool) -> list[Trial]:
    """`count` trials of a run of `steps` steps; no fault comes a second time before all have come once."""
    dice = random.Random(seed)
    trials: list[Trial] = []
    while len(trials) < count:
        kinds = faults(with_disk)
        dice.shuffle(kinds)
        for fault in kinds:
            # Two checkpoints are there before one is damaged, and a step is left for the run that goes on.
            first = 2 if fault.damage else 0
            trials.append(
                Trial(fault, dice.choice(fault.moments), dice.randrange(first, steps - 1), round(dice.random(), 3))
            )
    return trials[:count]


def of_run(run_dir: Path) -> Iterator[psutil.Process]:
    """The processes whose environment names this run's directory, without zombies."""
    for process in psutil.process_iter():
        try:
            if process.environ().get("RECIPE_RUN_DIR") == str(run_dir) and process.status() != psutil.STATUS_ZOMBIE:
                yield process
        except (psutil.Error, OSError):
            continue


def find(role: str, run_dir: Path, launcher: psutil.Process) -> psutil.Process | None:
    """A process of that role; None while there is none."""
    if role == "launcher":
        return launcher
    try:
        candidates = launcher.children(recursive=True) if role == "watchdog" else list(of_run(run_dir))
    except psutil.Error:
        return None
    for process in candidates:
        try:
            if _ROLES[role](process):
                return process
        except psutil.Error:
            continue
    return None


def _title(start: str) -> Callable[[psutil.Process], bool]:
    """Ray's title of an actor, of the process that the raylet started, not of one that was forked from it."""

    def matches(process: psutil.Process) -> bool:
        parent = process.parent()
        return "".join(process.cmdline()).startswith(start) and parent is not None and parent.name() == "raylet"

    return matches


def _module(name: str) -> Callable[[psutil.Process], bool]:
    return lambda process: name in process.cmdline()


_ROLES: dict[str, Callable[[psutil.Process], bool]] = {
    "driver": _module("recipe.launch.driver"),
    "watchdog": _module("recipe.launch.watchdog"),
    "task runner": _title("ray::TaskRunner"),
    "worker": _title("ray::WorkerDict"),
    "grading worker": lambda process: any(word.endswith("reward/processes/worker.py") for word in process.cmdline()),
    "raylet": lambda process: process.name() == "raylet",
    "gcs": lambda process: process.name() == "gcs_server",
}


def damage(what: str, run_dir: Path, dice: random.Random) -> str:
    """Damage what a killed run has left; returns what was done.

    Raises:
        LookupError: there is nothing of that kind.
    """
    checkpoints = run_dir / "checkpoints"
    if what == "latest emptied":
        (checkpoints / "latest_checkpointed_iteration.txt").write_bytes(b"")
        return what
    if what == "metrics torn":
        data = (run_dir / "metrics.jsonl").read_bytes()
        os.truncate(run_dir / "metrics.jsonl", len(data) - dice.randrange(1, max(2, len(data.splitlines()[-1]))))
        return what
    newest = max(
        (path for path in checkpoints.glob("global_step_*") if path.name.rpartition("_")[2].isdigit()),
        key=lambda path: int(path.name.rpartition("_")[2]),
        default=None,
    )
    files = sorted(path for path in newest.rglob("*") if path.is_file() and path.stat().st_size) if newest else []
    if not files:
        raise LookupError("no checkpoint to damage")
    victim = dice.choice(files)
    if what == "truncated":
        os.truncate(victim, victim.stat().st_size // 2)
    elif what == "zeroed":
        os.truncate(victim, 0)
    else:
        victim.unlink()
    return f"{victim.relative_to(checkpoints)} {what}"
