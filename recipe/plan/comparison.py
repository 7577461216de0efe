# SPDX-License-Identifier: Apache-2.0
"""The plan beside what was published, as the Markdown tables of docs/PLAN.md."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from recipe.plan import calibration
from recipe.plan.calibration import CONSTANT, ENGINE_STEP, GRADE, PASS, TRAINING
from recipe.plan.memory import PHASES, memory
from recipe.plan.published import FITTED, ROWS, PublishedStep
from recipe.plan.subject import subject
from recipe.runfile.config import load
from recipe.runfile.schema import GIB

# Each constant: what it is, its unit, and how many of that unit are one of what it is kept in.
CONSTANTS = {
    ENGINE_STEP: ("c₁: an engine step, beyond what memory, links and products take at their peak rates", "ms", 1e3),
    GRADE: ("c₂: grading an answer", "ms", 1e3),
    PASS: ("c₃: a pass without gradients, as a multiple of its products at the peak rate", "", 1.0),
    TRAINING: ("c₄: an update, as a multiple of its products at the peak rate", "", 1.0),
}


def constant_table() -> Iterator[str]:
    """Lines of a Markdown table: the constants, what they were fitted to, and how far they miss a step left out."""
    yield "| constant | fitted | phases fitted to | degrees of freedom | of the publications | published / predicted |"
    yield "|---|---:|---:|---:|---:|---:|"
    shown = calibration.observations(FITTED)
    for name, (what, unit, scale) in CONSTANTS.items():
        of_it = [one for one in shown if CONSTANT[one.phase] == name]
        low, high = calibration.misses()[name]
        value = f"{scale * calibration.fitted()[name]:.1f} {unit}".rstrip()
        sources = len({one.row.source for one in of_it})
        yield f"| {what} | {value} | {len(of_it)} | {len(of_it) - 1} | {sources} | {low:.2f} to {high:.2f} |"


def compared(row: PublishedStep) -> dict[str, tuple[float, float, float, float]]:
    """By phase, and for the whole step: seconds published, fitted, and predicted with the step, or all steps of its
    publication, left out of the fit."""
    fits = [calibration.fitted(), calibration.without_row(row), calibration.without_source(row)]
    told = [calibration.predicted(row, rates) for rates in fits]
    pairs = {
        phase: (took, told[0][phase], told[1][phase], told[2][phase]) for phase, took in row.seconds.items()
    }  # fmt: skip
    if row.step_s is not None:
        whole = [sum(one.values()) for one in told]
        pairs["step"] = (row.step_s, whole[0], whole[1], whole[2])
    return pairs


def time_table() -> Iterator[str]:
    """Lines of a Markdown table: published seconds, and how far three fits are off."""
    yield "| published step | phase | published s | fitted s | off | step left out | publication left out |"
    yield "|---|---|---:|---:|---:|---:|---:|"
    for row in ROWS:
        name = f"{row.name} (held out)" if row.held_out else row.name
        for phase, (took, fitted, *left_out) in compared(row).items():
            off = " | ".join(f"{told / took - 1:+.0%}" for told in (fitted, *left_out))
            yield f"| {name} | {phase} | {took:.1f} | {fitted:.1f} | {off} |"


def as_json() -> dict[str, Any]:
    """Both tables: seconds, and constants in seconds or as multiples."""
    fits = ("published", "fitted", "step_left_out", "publication_left_out")
    return {
        "constants": {
            name: {"fitted": calibration.fitted()[name], "published_over_predicted": list(calibration.misses()[name])}
            for name in CONSTANTS
        },
        "steps": [
            {
                "step": row.name,
                "publication": row.source,
                "held_out": row.held_out or None,
                "seconds": {phase: dict(zip(fits, told, strict=True)) for phase, told in compared(row).items()},
            }
            for row in ROWS
        ],
    }


def memory_table(configs: Path, names: list[str]) -> Iterator[str]:
    """Lines of a Markdown table: GiB on the fullest die by phase, and on a node, for each run file."""
    yield "| run file | die has | rollout | old log-prob | reference | update | switch | node, of it page-locked |"
    yield "|---|---:|---:|---:|---:|---:|---:|---:|"
    for name in names:
        needed = memory(subject(load(configs / f"{name}.toml")))
        cells = [f"{needed.limit / GIB:.1f}"]
        for phase in PHASES:
            die = needed.worst(phase) if phase in needed.phases else None
            cells.append("" if die is None else f"{(die.total(phase) + die.outside_total) / GIB:.1f}")
        cells.append(f"{needed.host.total / GIB:.0f}, {needed.host.pinned_total / GIB:.0f}")
        yield f"| `{name}.toml` | {' | '.join(cells)} |"
