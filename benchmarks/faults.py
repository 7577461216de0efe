# SPDX-License-Identifier: Apache-2.0
"""Real runs on the simulated NPU that are disturbed at random moments, and started again by the same command.

    python benchmarks/faults.py --trials 40 --seed 1 [--json]

Each trial starts `python -m recipe launch` on a run of a few steps with a checkpoint after each, disturbs it once (kill
-9 or SIGSTOP of one of its processes, a full disk, damaged files of a checkpoint, torn metrics; in set-up, in a step,
in a save), waits for the launcher's end, and types the same command until the run is through. Then it counts:

  unequal_metrics  figures that are not times and differ from those of an undisturbed run of the same seed
  steps_twice      steps that stand in the metrics more than once, or not at all
  leftovers        processes of the run after an end, files in its temporary directory after the last one
  tracebacks       tracebacks among what a launcher printed
  wrong_exit       launchers that ended otherwise than the fault allows, did not end, or left no valid result.json
  began_anew       runs that began anew although a whole checkpoint was there

A trial takes about two minutes on two cores. Needs the environment that scripts/setup.sh makes; the full disk also the
right to mount a file system in memory (root). The exit code is 1 when anything was counted.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from benchmarks.fault_kinds import SAVE, SETUP, STEP, Trial, damage, draw, find, of_run  # noqa: E402
from recipe.checkpoints import look  # noqa: E402
from recipe.report.metrics import read_steps, unequal_metrics  # noqa: E402

COUNTED = ("unequal_metrics", "steps_twice", "leftovers", "tracebacks", "wrong_exit", "began_anew")
STEPS = 5
# A silence of so many seconds ends the run: what hangs because a process of it is stopped.
STEP_DEADLINE_S, SETUP_DEADLINE_S = 40, 300
LAUNCH_LIMIT_S = 600.0
# How long a launcher is stopped before it may go on: nobody else is stopped by this benchmark and continued.
PAUSE_S = 15.0
# A watchdog ends what a killed launcher leaves: 5 s of patience with each process, and what the machine needs.
AFTERMATH_S = 30.0
DISK = "192m"
ATTEMPTS = 3


@dataclass
class TrialOutcome:
    """What one trial showed."""

    trial: str
    placed: str = ""
    counts: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    wall_s: float = 0.0

    def count(self, what: str, note: str, number: int = 1) -> None:
        self.counts[what] += number
        self.notes.append(f"{what}: {note}")

    def row(self) -> dict[str, Any]:
        return vars(self) | {"counts": dict(self.counts)}


@dataclass
class Bench:
    """One run file, and where its runs are. `disk`: a small file system that holds them, or None."""

    directory: Path
    seed: int
    disk: Path | None

    def __post_init__(self) -> None:
        self.runs = self.disk or self.directory / "runs"
        self.runs.mkdir(exist_ok=True)
        text = (REPOSITORY / "configs" / "sim.toml").read_text(encoding="utf-8")
        for pattern, replacement in (
            (r"^steps = .*", f'steps = {STEPS}\nsave_every = 1\noutput_dir = "{self.runs}"'),
            (r"^validate_every = .*", "validate_every = 2"),
            (r"^setup_deadline_s = .*", f"setup_deadline_s = {SETUP_DEADLINE_S}"),
            (r"^step_deadline_s = .*", f"step_deadline_s = {STEP_DEADLINE_S}"),
            (r'^kind = "tiny".*', 'kind = "tiny"\nwarm_start_steps = 40'),
            (r"^workers = .*", "workers = 1"),
            (r"^validation_samples = .*", "validation_samples = 1"),
        ):
            text, replaced = re.subn(pattern, replacement, text, flags=re.MULTILINE)
            assert replaced, pattern
        self.file = self.directory / "run.toml"
        self.file.write_text(text, encoding="utf-8")

    def start(self, name: str, temporary: Path) -> subprocess.Popen[bytes]:
        """Type the command; what it prints goes to a file beside the runs."""
        command = [sys.executable, "-m", "recipe", "launch", str(self.file), "--name", name, "--seed", str(self.seed)]
        environment = {**os.environ, "RECIPE_RUNS": str(self.directory / "cache"), "TMPDIR": str(temporary)}
        with open(self.printed(name), "ab") as output:
            return subprocess.Popen(command, env=environment, cwd=REPOSITORY, stdout=output, stderr=subprocess.STDOUT)

    def printed(self, name: str) -> Path:
        return self.directory / f"{name}.txt"


def main() -> int:
    """Runs the trials and prints a line for each, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=6, metavar="N", help="how many runs are disturbed (default: 6)")
    parser.add_argument("--seed", type=int, default=1, help="of the faults and of the runs")
    parser.add_argument("--skip", type=int, default=0, metavar="K", help="leave out the first K of the N trials")
    parser.add_argument("--only", metavar="TEXT", help="leave out the faults whose name does not hold TEXT")
    parser.add_argument("--list", action="store_true", help="print the trials that would be run, and stop")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep runs in which something was counted")
    parser.add_argument("--json", action="store_true", help="print JSON at the end; a line for each trial to stderr")
    options = parser.parse_args()
    say = lambda line: print(line, file=sys.stderr if options.json else sys.stdout, flush=True)  # noqa: E731
    can_mount = os.geteuid() == 0 and shutil.which("mount") is not None
    trials = draw(options.trials, options.seed, STEPS, can_mount)[options.skip :]
    trials = [trial for trial in trials if options.only is None or options.only in trial.fault.name]
    if options.list:
        print(*trials, sep="\n")
        return 0
    if not can_mount:
        say("the disk is never full: only root can mount a small file system")
    outcomes: list[TrialOutcome] = []
    begin = time.monotonic()
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="faults-", dir="/tmp")))
        plain = Bench(directory, options.seed, None)
        say("the undisturbed run")
        reference = undisturbed(plain)
        for number, trial in enumerate(trials, start=1):
            with small_disk(directory) if trial.fault.fills_disk else contextlib.nullcontext() as disk:
                bench = Bench(directory, options.seed, disk) if disk else plain
                outcomes.append(run_trial(bench, trial, f"t{number}", reference, options.keep))
            remaining_s = (time.monotonic() - begin) / number * (len(trials) - number)
            summary = "; ".join(outcomes[-1].notes) or "well"
            took = f"{outcomes[-1].wall_s:4.0f} s"
            say(f"{number:3} of {len(trials)}  {took}  {trial}: {summary}  ({remaining_s / 60:.0f} min left)")
    total: Counter[str] = sum((outcome.counts for outcome in outcomes), Counter())
    result: dict[str, Any] = {"trials": len(outcomes)} | {what: total[what] for what in COUNTED}
    result |= {"seed": options.seed, "disk_full": can_mount, "wall_s": round(time.monotonic() - begin)}
    if options.json:
        print(json.dumps(result | {"rows": [outcome.row() for outcome in outcomes]}, indent=2))
    else:
        print("  ".join(f"{name} {value}" for name, value in result.items()))
    return int(any(total[what] for what in COUNTED))


@dataclass(frozen=True)
class UndisturbedRun:
    """The undisturbed run: its metrics, and how long its set-up and one of its steps took."""

    metrics: Path
    setup_s: float
    step_s: float


def undisturbed(bench: Bench) -> UndisturbedRun:
    """Run it once more than needed: the first time makes the model, and so does not tell how long set-up takes."""
    with tempfile.TemporaryDirectory(prefix="flt-", dir="/tmp") as temporary:
        for name in ("first", "reference"):
            begin = time.monotonic()
            launcher = bench.start(name, Path(temporary))
            metrics = bench.runs / name / "metrics.jsonl"
            setup_s = 0.0
            while launcher.poll() is None:
                if not setup_s and steps_in(metrics):
                    setup_s = time.monotonic() - begin
                time.sleep(0.1)
            if launcher.returncode:
                raise SystemExit(f"error: the undisturbed run failed: {bench.printed(name).read_text()[-500:]}")
            step_s = (time.monotonic() - begin - setup_s) / STEPS
    unequal = unequal_metrics(read_steps(bench.runs / "first" / "metrics.jsonl"), read_steps(metrics))
    if unequal:
        raise SystemExit(f"error: two undisturbed runs differ: {'; '.join(unequal[:5])}")
    return UndisturbedRun(metrics, setup_s, step_s)


def run_trial(bench: Bench, trial: Trial, name: str, reference: UndisturbedRun, keep: Path | None) -> TrialOutcome:
    """Disturb one run, and type its command until it is through."""
    outcome, begin = TrialOutcome(str(trial)), time.monotonic()
    run_dir, dice = bench.runs / name, random.Random(str(trial))
    with tempfile.TemporaryDirectory(prefix="flt-", dir="/tmp") as temporary:
        launcher = bench.start(name, Path(temporary))
        try:
            place(trial, bench, run_dir, launcher, reference, outcome)
            code = end_of(launcher, outcome)
            if code is not None and code not in trial.fault.exits:
                outcome.count("wrong_exit", f"{code}, expected {sorted(trial.fault.exits)}")
            if code is not None and code >= 0:
                check_result(run_dir, outcome)
            if bench.disk:
                (bench.disk / "ballast").unlink(missing_ok=True)
            if len(trial.fault.roles) < 2:  # without launcher and watchdog the next launch clears up
                check_nothing_runs(run_dir, outcome)
            if trial.fault.damage:
                with contextlib.suppress(LookupError):
                    outcome.placed += ", " + damage(trial.fault.damage, run_dir, dice)
            for _ in range(ATTEMPTS):
                saved = any(checkpoint.whole for checkpoint in look(run_dir / "checkpoints"))
                launcher = bench.start(name, Path(temporary))
                code = end_of(launcher, outcome)
                if saved and run_dir.with_name(f"{name}.1").exists():
                    outcome.count("began_anew", "with a whole checkpoint there")
                check_nothing_runs(run_dir, outcome)
                if code == 0:
                    check_result(run_dir, outcome)
                    break
                outcome.count("wrong_exit", f"{code} of the same command after the fault")
        finally:
            clear(run_dir, launcher)
        leftovers = sorted(path.name for path in Path(temporary).iterdir())
        if leftovers:
            outcome.count("leftovers", f"in the temporary directory: {', '.join(leftovers[:5])}")
    check_metrics(run_dir, reference, outcome)
    printed = bench.printed(name).read_text(encoding="utf-8", errors="replace")
    if "Traceback (most recent call last)" in printed:
        outcome.count("tracebacks", "printed by a launcher", printed.count("Traceback (most recent call last)"))
    if keep is not None and outcome.counts:
        shutil.copytree(run_dir, keep / name, dirs_exist_ok=True, symlinks=True)
        shutil.copy(bench.printed(name), keep / f"{name}.txt")
    shutil.rmtree(run_dir, ignore_errors=True)
    outcome.wall_s = round(time.monotonic() - begin, 1)
    return outcome


def place(
    trial: Trial,
    bench: Bench,
    run_dir: Path,
    launcher: subprocess.Popen[bytes],
    reference: UndisturbedRun,
    outcome: TrialOutcome,
) -> None:
    """Wait for the trial's moment, and do what it does to the run."""
    begin = time.monotonic()
    if trial.moment == STEP:
        wait_for(lambda: trial.after_step in steps_in(run_dir / "metrics.jsonl"), launcher)
        time.sleep(trial.share * reference.step_s)
    elif trial.moment == SAVE:
        wait_for((run_dir / "checkpoints" / f"global_step_{trial.after_step + 1}").is_dir, launcher)
        time.sleep(trial.share)
    else:
        assert trial.moment == SETUP
        end = begin + trial.share * reference.setup_s  # no later than set-up, should that be quicker this time
        wait_for(lambda: time.monotonic() >= end or steps_in(run_dir / "metrics.jsonl"), launcher)
    if launcher.poll() is not None:
        outcome.count("wrong_exit", f"{launcher.returncode} before the fault: {last_line(bench.printed(run_dir.name))}")
        return
    if trial.fault.fills_disk:
        assert bench.disk is not None
        fill(bench.disk)
        outcome.placed = "disk filled"
        return
    parent = psutil.Process(launcher.pid)
    hit: list[psutil.Process] = []
    for role in trial.fault.roles:
        wait_for(lambda role=role: find(role, run_dir, parent) is not None, launcher)
        victim = find(role, run_dir, parent)
        if victim is None:
            outcome.count("wrong_exit", f"the run ended before there was a {role}")
            return
        hit.append(victim)
    for victim in hit:
        with contextlib.suppress(psutil.NoSuchProcess):
            victim.send_signal(trial.fault.number)
    outcome.placed = f"pid {', '.join(str(process.pid) for process in hit)} after {time.monotonic() - begin:.1f} s"
    if trial.fault.number == signal.SIGSTOP and trial.fault.roles == ("launcher",):
        time.sleep(PAUSE_S)
        hit[0].resume()


def last_line(printed: Path) -> str:
    return printed.read_text(encoding="utf-8", errors="replace").strip().rpartition("\n")[2]


def wait_for(condition: Any, launcher: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + LAUNCH_LIMIT_S
    while not condition() and launcher.poll() is None and time.monotonic() < end:
        time.sleep(0.05)


def end_of(launcher: subprocess.Popen[bytes], outcome: TrialOutcome) -> int | None:
    """The exit code; None when it did not end, and was killed."""
    try:
        return launcher.wait(timeout=LAUNCH_LIMIT_S)
    except subprocess.TimeoutExpired:
        outcome.count("wrong_exit", f"no end within {LAUNCH_LIMIT_S:.0f} s")
        launcher.kill()
        launcher.wait()
        return None


def check_result(run_dir: Path, outcome: TrialOutcome) -> None:
    path = run_dir / "result.json"
    if not run_dir.is_dir():  # stopped before there was a directory
        return
    try:
        status = json.loads(path.read_text(encoding="utf-8"))["status"]
    except FileNotFoundError:
        return
    except (OSError, ValueError, KeyError, TypeError) as error:
        outcome.count("wrong_exit", f"result.json cannot be read: {error}")
        return
    if status not in ("finished", "failed"):
        outcome.count("wrong_exit", f"result.json says {status!r}")


def check_nothing_runs(run_dir: Path, outcome: TrialOutcome) -> None:
    end = time.monotonic() + AFTERMATH_S
    while processes := list(of_run(run_dir)):
        if time.monotonic() > end:
            outcome.count(
                "leftovers", f"processes {', '.join(str(process.pid) for process in processes)}", len(processes)
            )
            return
        time.sleep(0.5)


def check_metrics(run_dir: Path, reference: UndisturbedRun, outcome: TrialOutcome) -> None:
    steps = steps_in(run_dir / "metrics.jsonl")
    wrong = [step for step in range(STEPS + 1) if steps.count(step) != 1]
    if wrong:
        outcome.count("steps_twice", f"steps {wrong} of {steps}", len(wrong))
    unequal = unequal_metrics(read_steps(reference.metrics), read_steps(run_dir / "metrics.jsonl"))
    if unequal:
        outcome.count("unequal_metrics", f"{unequal[0]} (and {len(unequal) - 1} more)", len(unequal))


def clear(run_dir: Path, launcher: subprocess.Popen[bytes]) -> None:
    """End all processes of the trial, so that the next one has the machine to itself."""
    if launcher.poll() is None:
        launcher.kill()
        launcher.wait()
    for process in of_run(run_dir):
        with contextlib.suppress(psutil.Error):
            process.kill()


def steps_in(metrics: Path) -> list[int]:
    """The steps that stand in a metrics file, as often as they do."""
    try:
        lines = metrics.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    steps = []
    for line in lines:
        with contextlib.suppress(ValueError, KeyError, TypeError):
            steps.append(int(json.loads(line)["step"]))
    return steps


def fill(disk: Path) -> None:
    """Leave no byte of the file system that `disk` is on."""
    with contextlib.suppress(OSError), open(disk / "ballast", "wb", buffering=0) as ballast:
        for size in (2**20, 2**10, 1):
            with contextlib.suppress(OSError):
                while ballast.write(b"\0" * size):
                    pass


@contextlib.contextmanager
def small_disk(directory: Path) -> Iterator[Path]:
    """A file system in memory with `DISK` bytes."""
    disk = directory / "disk"
    disk.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(disk)], check=True)
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


if __name__ == "__main__":
    sys.exit(main())
