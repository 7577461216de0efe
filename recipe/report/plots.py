# SPDX-License-Identifier: Apache-2.0
"""The pictures of a run, as PNG files in its directory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recipe.recorder import read_events
from recipe.report.curves import Points, curves
from recipe.report.marks import SETTING, STOP, WARNING, Mark, read_marks
from recipe.report.metrics import Step, read_steps

# verl's timers that follow one another in a step; what the step takes beyond their sum is shown as "other". Validation
# is not part of a step's time.
PHASES = ("gen", "reward", "old_log_prob", "ref", "adv", "update_actor")
# Device memory is recorded at the end of these phases of a step, in this order.
MEMORY_PHASES = ("weights_in", "weights_synced", "kv_in", "generated", "released", "log_prob", "ref", "update")
MIB = 2**20
# Worst first.
MARK_COLOURS = {STOP: "firebrick", WARNING: "darkorange", SETTING: "slategrey"}
LABELLED_MARKS, LONGEST_LABEL = 8, 44


def draw_all(run_dir: Path) -> dict[str, Path]:
    """Draw what the run has data for; returns title -> file."""
    import matplotlib

    matplotlib.use("Agg")
    steps = read_steps(run_dir / "metrics.jsonl")
    trained = [step for step in steps if step.trained]
    events = read_events(run_dir)
    marks = read_marks(run_dir)
    drawn: dict[str, Path] = {}
    for curve in curves(steps):
        path = run_dir / f"{curve.name}.png"
        drawn[curve.title] = _line(path, curve.title, curve.label, curve.points, from_zero=curve.from_zero, marks=marks)
    if trained:
        drawn["Step time"] = _step_times(run_dir / "step_time.png", trained)
    memory = [event for event in events if event.get("kind") == "memory"]
    if memory:
        drawn["Device memory by phase"] = _memory(run_dir / "device_memory.png", memory)
    resident = [event for event in events if event.get("kind") == "processes"]
    if resident:
        start = float(resident[0]["time"])
        points = [(float(event["time"]) - start, float(event["rss"]) / 2**30) for event in resident]
        drawn["Host memory"] = _line(
            run_dir / "host_memory.png", "Host memory", "GiB, all processes", points, across="seconds"
        )
    return drawn


def _axes(title: str, across: str, up: str) -> Any:
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title)
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.grid(alpha=0.3)
    if across == "step":
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return axes


def _save(axes: Any, path: Path) -> Path:
    axes.figure.savefig(path, dpi=110)
    return path


def _line(
    path: Path,
    title: str,
    up: str,
    points: Points,
    across: str = "step",
    from_zero: bool = True,
    marks: Sequence[Mark] = (),
) -> Path:
    axes = _axes(title, across, up)
    axes.plot(*zip(*points, strict=True), marker="o" if len(points) < 30 else None, markersize=4)
    if from_zero and all(value >= 0 for _, value in points):
        axes.set_ylim(bottom=0)
    _draw_marks(axes, marks)
    return _save(axes, path)


def _draw_marks(axes: Any, marks: Sequence[Mark]) -> None:
    """A vertical line at each marked step in the colour of the worst mark there, with the names along it."""
    by_step: dict[int, list[Mark]] = {}
    for mark in marks:
        by_step.setdefault(mark.step, []).append(mark)
    for step, step_marks in by_step.items():
        kind = next(kind for kind in MARK_COLOURS if any(mark.kind == kind for mark in step_marks))
        colour = MARK_COLOURS[kind]
        axes.axvline(step, color=colour, linestyle="-" if kind == STOP else "--", linewidth=1)
        if len(by_step) > LABELLED_MARKS and kind != STOP:
            continue  # names at many lines would cover one another; the page lists all marks
        names = ", ".join(dict.fromkeys(mark.name for mark in step_marks))
        names = names if len(names) <= LONGEST_LABEL else names[:LONGEST_LABEL] + "..."
        axes.annotate(
            names, (step, 0.98), xycoords=("data", "axes fraction"), xytext=(-2, 0), textcoords="offset points",
            rotation=90, ha="right", va="top", fontsize=7, color=colour, parse_math=False,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 0.5},
        )  # fmt: skip


def _step_times(path: Path, steps: list[Step]) -> Path:
    """Seconds of each step, stacked by verl's timers."""
    axes = _axes("Step time", "step", "seconds")
    numbers = [step.number for step in steps]
    bottom = [0.0] * len(steps)
    for phase in PHASES:
        heights = [step.get(f"timing_s/{phase}") or 0.0 for step in steps]
        if any(heights):
            axes.bar(numbers, heights, bottom=bottom, label=phase, width=0.9)
            bottom = [low + height for low, height in zip(bottom, heights, strict=True)]
    unnamed = [max(0.0, (step.get("timing_s/step") or 0.0) - low) for step, low in zip(steps, bottom, strict=True)]
    axes.bar(numbers, unnamed, bottom=bottom, label="other", width=0.9, color="lightgrey")
    # Above the bars, not over them.
    axes.set_ylim(top=1.3 * max(low + rest for low, rest in zip(bottom, unnamed, strict=True)))
    axes.legend(fontsize="small", ncols=4, loc="upper center")
    return _save(axes, path)


def _memory(path: Path, events: list[dict[str, Any]]) -> Path:
    """Bytes of live tensors on a device at the end of each phase: the largest over steps and ranks, and the median."""
    axes = _axes("Device memory by phase", "end of the phase", "MiB on one device")
    by_phase = {
        phase: sorted(float(event.get("allocated", 0)) / MIB for event in events if event.get("phase") == phase)
        for phase in MEMORY_PHASES
    }
    shown = [phase for phase in MEMORY_PHASES if by_phase[phase]]
    places = range(len(shown))
    axes.bar([p - 0.2 for p in places], [by_phase[phase][-1] for phase in shown], width=0.4, label="largest")
    axes.bar([p + 0.2 for p in places], [by_phase[p][len(by_phase[p]) // 2] for p in shown], width=0.4, label="median")
    axes.set_xticks(list(places), shown, rotation=20)
    axes.legend(fontsize="small")
    return _save(axes, path)
