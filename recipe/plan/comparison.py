# SPDX-License-Identifier: Apache-2.0
"""The plan beside what was published, as the Markdown tables of docs/PLAN.md."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from recipe.plan.duration import estimate
from recipe.plan.memory import PHASES, memory
from recipe.plan.published import ROWS, PublishedStep
from recipe.plan.subject import Subject, subject
from recipe.plan.traffic import lengths
from recipe.runfile.config import load
from recipe.runfile.schema import GIB


def planned(row: PublishedStep, configs: Path) -> Subject:
    """The planned run of a published step."""
    return subject(load(configs / f"{row.config}.toml"))


def phases(row: PublishedStep, run: Subject) -> dict[str, tuple[float, float]]:
    """Seconds published and estimated, by phase; what the published run did not do is left out."""
    estimated = estimate(run, lengths(run, row.prompt, row.response), row.recomputed)
    assert estimated is not None
    published = {
        "generation and switches": row.generation + row.switches,
        "reward": row.reward,
        "log_prob": row.log_prob,
        "ref": row.ref,
        "update": row.update,
    }
    pairs = {name: (seconds, estimated.phases[name]) for name, seconds in published.items() if seconds}
    return {**pairs, "step": (row.step, sum(seconds for _, seconds in pairs.values()))}


def time_table(configs: Path) -> Iterator[str]:
    """Lines of a Markdown table: published and estimated seconds of every published step."""
    yield "| published step | phase | published s | estimated s | off |"
    yield "|---|---|---:|---:|---:|"
    for row in ROWS:
        for name, (seconds, estimated) in phases(row, planned(row, configs)).items():
            yield f"| {row.name} | {name} | {seconds:.1f} | {estimated:.1f} | {estimated / seconds - 1:+.0%} |"


def memory_table(configs: Path, names: list[str]) -> Iterator[str]:
    """Lines of a Markdown table: GiB on the fullest die by phase, and on a node, for each run file."""
    yield "| run file | die has | rollout | old log-prob | reference | update | switch | node, of it page-locked |"
    yield "|---|---:|---:|---:|---:|---:|---:|---:|"
    for name in names:
        needed = memory(subject(load(configs / f"{name}.toml")))
        cells = [f"{needed.limit / GIB:.1f}"]
        for phase in PHASES:
            die = needed.worst(phase)
            cells.append(f"{(die.total(phase) + die.outside_total) / GIB:.1f}")
        cells.append(f"{needed.host.total / GIB:.0f}, {needed.host.pinned_total / GIB:.0f}")
        yield f"| `{name}.toml` | {' | '.join(cells)} |"
