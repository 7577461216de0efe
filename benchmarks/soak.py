# SPDX-License-Identifier: Apache-2.0
"""A long run on the simulated NPU: what it holds in its first quarter of steps, and in its last.

    python benchmarks/soak.py [--steps 300] [--config configs/sim.toml] [--json]

Runs `python -m recipe launch` to its end and looks at the run every two seconds: resident memory (summed over all
processes of the run, the launcher and its watchdog too), open files, threads, bytes under /dev/shm and in the run's
temporary directory, bytes of its logs; and, from the run's own events, the device bytes that the rollout holds after a
release. Prints the mean of both quarters and the growth. 300 steps take about ten minutes on two cores. The exit code
is 1 when the run fails, or when anything but the logs grows by more than 2 %.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import psutil

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from benchmarks.fault_kinds import of_run  # noqa: E402
from recipe.recorder import read_events  # noqa: E402
from recipe.report.metrics import read_steps  # noqa: E402

SAMPLE_S = 2.0
MOST_GROWTH = 0.02
MAY_GROW = ("bytes of logs",)


def main() -> int:
    """Runs, samples, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300, metavar="N")
    parser.add_argument("--seed", type=int, default=2)
    parser.add_argument("--config", type=Path, default=REPOSITORY / "configs" / "sim.toml", metavar="RUN.toml")
    parser.add_argument("--runs", type=Path, metavar="DIR", help="keep the run there (default: a temporary directory)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-", dir="/tmp") as scratch:
        runs = options.runs or Path(scratch) / "runs"
        temporary = Path(scratch) / "t"
        temporary.mkdir()
        command = [sys.executable, "-m", "recipe", "launch", str(options.config), "--name", "soak", "--fresh"]
        launcher = subprocess.Popen(
            [*command, "--steps", str(options.steps), "--seed", str(options.seed)],
            env={**os.environ, "RECIPE_RUNS": str(runs), "TMPDIR": str(temporary)},
            cwd=REPOSITORY,
            stdout=sys.stderr,
        )
        samples: list[tuple[float, dict[str, float]]] = []
        while launcher.poll() is None:
            samples.append((time.time(), sample(launcher.pid, runs / "soak", temporary)))
            time.sleep(SAMPLE_S)
        if launcher.returncode:
            return 1
        rows = table(samples, runs / "soak", options.steps)
    grown = [name for name, (_, _, growth) in rows.items() if growth > MOST_GROWTH and name not in MAY_GROW]
    if options.json:
        print(json.dumps({"steps": options.steps, "rows": rows, "grown": grown}, indent=2))
    else:
        for name, (first, last, growth) in rows.items():
            print(f"{name:42} {first:16,.1f} {last:16,.1f} {growth:+8.1%}")
        print(f"grown by more than {MOST_GROWTH:.0%}: {', '.join(grown) or 'nothing'}")
    return int(bool(grown))


def sample(launcher: int, run_dir: Path, temporary: Path) -> dict[str, float]:
    """What the run holds at this moment."""
    own = psutil.Process(launcher)
    processes = {process.pid: process for process in [*of_run(run_dir), *_family(own)]}
    totals = dict.fromkeys(("resident MiB", "open files", "threads", "processes"), 0.0)
    for process in processes.values():
        try:
            with process.oneshot():
                totals["resident MiB"] += process.memory_info().rss / 2**20
                totals["open files"] += process.num_fds()
                totals["threads"] += process.num_threads()
                totals["processes"] += 1
        except psutil.Error:
            continue
    totals["bytes under /dev/shm"] = _bytes(Path("/dev/shm").rglob("*"))
    logs = [path for path in temporary.rglob("*") if "/logs/" in str(path)]
    totals["bytes of logs"] = _bytes([*logs, *(run_dir / "logs").rglob("*")])
    totals["bytes of other temporary files"] = _bytes(set(temporary.rglob("*")) - set(logs))
    return totals


def _family(process: psutil.Process) -> list[psutil.Process]:
    try:
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return []


def _bytes(paths: Iterable[Path]) -> float:
    """Bytes on disk or in memory that these files occupy, so that a sparse file counts with what it has."""
    total = 0
    for path in paths:
        try:
            if not path.is_symlink() and path.is_file():
                total += path.stat().st_blocks * 512
        except OSError:
            continue
    return float(total)


def table(
    samples: list[tuple[float, dict[str, float]]], run_dir: Path, steps: int
) -> dict[str, tuple[float, float, float]]:
    """For each figure its mean over the first and the last quarter of the steps, and the growth as a share."""
    numbers = [step.number for step in read_steps(run_dir / "metrics.jsonl") if step.trained]
    assert numbers == list(range(1, steps + 1)), "every step stands in the metrics once"
    released = [
        event for event in read_events(run_dir) if event.get("kind") == "memory" and event.get("phase") == "released"
    ]
    # The first generation is the validation before training, the last releases follow the last validation.
    first, last = float(released[0]["time"]), float(released[-1]["time"])
    quarter = (last - first) / 4
    halves = [
        [figures for moment, figures in samples if first <= moment < first + quarter],
        [figures for moment, figures in samples if last - quarter <= moment < last],
    ]
    rows = {
        name: (
            statistics.mean(figures[name] for figures in halves[0]),
            statistics.mean(figures[name] for figures in halves[1]),
        )
        for name in samples[0][1]
    }
    count = len(released) // 4
    rows["device bytes of the rollout after a release"] = (
        statistics.mean(float(event["rollout_bytes"]) for event in released[:count]),
        statistics.mean(float(event["rollout_bytes"]) for event in released[-count:]),
    )
    return {name: (begin, end, end / begin - 1 if begin else float(end > 0)) for name, (begin, end) in rows.items()}


if __name__ == "__main__":
    sys.exit(main())
