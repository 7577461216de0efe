# SPDX-License-Identifier: Apache-2.0
"""A rehearsal as a page for the terminal and as JSON."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from recipe.plan.page import COLUMNS, layout_text
from recipe.rehearse.comparison import (
    TOLERANCE,
    Pair,
    compare_memory,
    compare_saving,
    compare_traffic,
    worst_difference,
)
from recipe.rehearse.job import SAVE, TITLES, StageResult
from recipe.rehearse.lengths import PROMPT, RESPONSE
from recipe.rehearse.reasons import reasons
from recipe.rehearse.subject import Rehearsed
from recipe.sizes import size_text

LARGEST = 5


@dataclass(frozen=True)
class Times:
    """Seconds that the processes of all stages took, in whichever call, and those of the last call."""

    stages: float
    call: float


def as_json(run: Rehearsed, results: Sequence[StageResult], times: Times) -> dict[str, Any]:
    """Everything that was counted, beside what was planned; bytes and seconds."""
    pairs, sent, saved = compare_memory(run, results), compare_traffic(run, results), compare_saving(run, results)
    return {
        "run": run.name,
        "stages": [_stage(result, pairs[result.stage], saved.get(result.stage, {})) for result in results],
        "traffic": {cause: {"sent_bytes": pair.counted, "planned_bytes": pair.planned} for cause, pair in sent.items()},
        "worst_difference": worst_difference(pairs),
        "wall_s": round(times.stages, 3),
        "call_s": round(times.call, 3),
        "rss_bytes": max((result.rss_bytes for result in results), default=0),
        "die_bytes": run.config.hbm_bytes_per_die,
        "outside_torch_bytes": run.outside_bytes,
        "oom": next((result.oom for result in results if result.oom is not None), None),
        "steering": _steering(run, results),
        "notes": list(run.notes),
        "reasons": list(reasons(run, pairs, saved)),
    }


def _stage(result: StageResult, pairs: Mapping[str, Pair], saved: Mapping[str, Pair]) -> dict[str, Any]:
    phases = {
        name: {
            **dataclasses.asdict(phase),
            "planned_bytes": pairs[name].planned if name in pairs else None,
        }
        for name, phase in result.phases.items()
    }
    return {
        "stage": result.stage, "die": result.rank, "phases": phases, "wall_s": result.wall_s,
        "rss_bytes": result.rss_bytes, "oom": result.oom, "saved": None if result.saved is None else {
            "files": result.saved["files"],
            "copied_bytes": result.saved["copies"],
            "copied_bytes_average": {kind: pair.counted for kind, pair in saved.items()},
            "planned_bytes_average": {kind: pair.planned for kind, pair in saved.items()},
        },
    }  # fmt: skip


def _steering(run: Rehearsed, results: Sequence[StageResult]) -> dict[str, Any]:
    numbers: dict[str, int] = {}
    for result in results:
        for reader, count in result.numbers_read.items():
            numbers[reader] = numbers.get(reader, 0) + count
    return {
        "lengths": {
            PROMPT: run.lengths.prompts_spread._asdict(),
            RESPONSE: run.lengths.responses_spread._asdict(),
            "rollout": run.lengths.drawn(run.planned.layout.rollout_sequences_per_engine),
            "forward": run.lengths.drawn(run.forward_sequences),
            "update": {str(stage): run.lengths.drawn(run.update_sequences(stage)) for stage in run.stages},
        },
        "expert_load": run.options.expert_load,
        "steps": run.steps,
        "sequences": {
            str(stage): {"forward": run.forward_sequences, "update": run.update_sequences(stage)}
            for stage in run.stages
        },
        "numbers_read": numbers,
    }


def as_text(run: Rehearsed, results: Sequence[StageResult], times: Times) -> str:
    """The page."""
    return "\n".join(_lines(run, results, times))


def _lines(run: Rehearsed, results: Sequence[StageResult], times: Times) -> Iterator[str]:
    cluster = run.given.cluster
    limit, hardware = run.config.hbm_bytes_per_die, run.given.node_hardware
    kind = "" if hardware is None else f" (in place of {hardware.name})"
    yield from _prose(
        f"{run.name}: {cluster.nodes} x {cluster.dies_per_node} simulated dies of {size_text(limit)}{kind}, without "
        "contents"
    )
    yield from _prose(layout_text(run.planned))
    yield from _prose(
        f"{run.lengths.text}; a die's experts get "
        f"{run.options.expert_load:g} times an even share; sequences in the passes without gradients: "
        f"{run.forward_sequences}, in the update: {_by_stage({s: run.update_sequences(s) for s in run.stages})}"
    )
    for note in run.notes:
        yield from _prose(note)
    for result in results:
        yield ""
        yield from _stage_lines(result)
    pairs = compare_memory(run, results)
    if any(pairs.values()):
        yield ""
        yield "Plan beside rehearsal: the most on a die"
        yield from _pairs_table(
            [
                ((f"stage {stage}", TITLES[name]), pair)
                for stage, phases in pairs.items()
                for name, pair in phases.items()
            ]
        )
    saved = compare_saving(run, results)
    if saved:
        yield ""
        yield "Plan beside rehearsal: host memory for a save, on the average of a stage's dies"
        yield from _pairs_table(
            [((f"stage {stage}", kind), pair) for stage, kinds in saved.items() for kind, pair in kinds.items()]
        )
    sent = compare_traffic(run, results)
    if sent:
        yield ""
        yield "Plan beside rehearsal: bytes that a die sends in a step"
        yield from _pairs_table([((cause, ""), pair) for cause, pair in sent.items()])
    for reason in reasons(run, pairs, saved):
        yield from _prose(reason)
    yield ""
    worst = worst_difference(pairs)
    yield from _prose(
        ("" if worst is None else f"largest difference in memory {worst:.1%}; ")
        + f"the stages took {times.stages:.0f} s, this call {times.call:.0f} s, "
        + f"{size_text(max(result.rss_bytes for result in results))} of this machine's memory"
    )
    yield from _outside(run, results)
    for result in results:
        if result.oom is not None:
            yield oom_text(result, run.outside_bytes)


def _outside(run: Rehearsed, results: Sequence[StageResult]) -> Iterator[str]:
    """The fullest phase with what is on a die beside that."""
    if not run.outside_bytes:
        return
    peak, name, stage = max(
        (phase.peak_bytes, name, result.stage) for result in results for name, phase in result.phases.items()
    )
    yield from _prose(
        f"beside that, {size_text(run.outside_bytes)} of a die are outside torch, by the plan: with them, "
        f"{size_text(peak + run.outside_bytes)} of {size_text(run.config.hbm_bytes_per_die)} at most, {TITLES[name]} "
        f"on stage {stage}"
    )


def oom_text(result: StageResult, outside_bytes: int) -> str:
    """What did not fit, in one line."""
    oom = result.oom or {}
    kinds = dict(list(oom["contents"].items())[:LARGEST])
    if outside_bytes:
        kinds["outside torch"] = outside_bytes
    stood = ", ".join(f"{kind} {size_text(size)}" for kind, size in kinds.items())
    wanted, free = oom["wanted_bytes"], oom["free_bytes"]
    asked = oom["error"] if wanted is None else f"{size_text(wanted)} wanted and {size_text(free)} free"
    title = TITLES.get(oom["phase"], oom["phase"])
    return f"OUT OF MEMORY: {title}, stage {result.stage}: {asked}, beside {stood}"


def _stage_lines(result: StageResult) -> Iterator[str]:
    yield f"Stage {result.stage}, die {result.rank}"
    rows = [("", "at most", "left", "page-locked", "operators", "seconds", "expert load")]
    rows += [
        (
            TITLES[name], size_text(phase.peak_bytes), size_text(phase.resident_bytes), size_text(phase.pinned_bytes),
            f"{phase.operators:,}", f"{phase.wall_s:.1f}",
            "" if phase.expert_load is None else f"{phase.expert_load:.2f}",
        )
        for name, phase in result.phases.items()
    ]  # fmt: skip
    yield from _table(rows)
    for name, phase in result.phases.items():
        largest = ", ".join(f"{kind} {size_text(size)}" for kind, size in list(phase.contents.items())[:LARGEST])
        yield from _prose(f"{TITLES[name]}: {largest or 'nothing'}", "  ")
    if result.saved is not None:
        files, copies = result.saved["files"], result.saved["copies"]
        copied = ", ".join(f"{kind.split(': ')[1]} {size_text(size)}" for kind, size in copies.items())
        yield from _prose(
            f"{TITLES[SAVE]}: {copied}; {len(files)} files of {size_text(sum(files.values()))} not written", "  "
        )
    traffic = [("collectives", "ranks", "calls", "sent", "received")]
    for name, phase in result.phases.items():
        traffic += [
            (
                f"{TITLES[name]}: {one['kind']}, {one['group']}", str(one["size"]), f"{one['calls']:,}",
                size_text(one["sent"]), size_text(one["received"]),
            )
            for one in sorted(_moved(phase.traffic), key=lambda one: -max(one["sent"], one["received"]))[:LARGEST]
        ]  # fmt: skip
    if len(traffic) > 1:
        yield from _table(traffic)


def _by_stage(counts: Mapping[int, int]) -> str:
    """One number where all are equal, else each with its stage."""
    if len(set(counts.values())) == 1:
        return str(next(iter(counts.values())))
    return ", ".join(f"{count} on stage {stage}" for stage, count in counts.items())


def _moved(traffic: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without that of groups of one die, which stays on it."""
    return [one for one in traffic if one["size"] > 1]


def _pairs_table(pairs: Sequence[tuple[tuple[str, str], Pair]]) -> Iterator[str]:
    rows = [("", "", "rehearsed", "planned", "difference")]
    rows += [
        (
            *label, size_text(pair.counted), size_text(pair.planned),
            f"{pair.difference:+.1%}" + (f"  more than {TOLERANCE:.0%}" if pair.is_off else ""),
        )
        for label, pair in pairs
    ]  # fmt: skip
    yield from _table(rows, texts=2)


def _prose(text: str, indent: str = "") -> Iterator[str]:
    yield from textwrap.wrap(
        text, COLUMNS, initial_indent=indent, subsequent_indent=indent + "  ", break_on_hyphens=False
    )


def _table(rows: Sequence[Sequence[str]], texts: int = 1) -> Iterator[str]:
    """Columns as wide as they need to be: the first `texts` and the last to the left, the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        cells = [
            f"{cell:<{width}}" if place < texts else f"{cell:>{width}}"
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield ("  " + "  ".join(cells)).rstrip()
