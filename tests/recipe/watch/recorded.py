# SPDX-License-Identifier: Apache-2.0
"""Metrics of two real runs of `configs/sim.toml` on the simulator, by verl's names, and what changes them.

`healthy.jsonl`: seed 1. `dead.jsonl`: the same with `learning_rate = 1e4`. Figures that no rule reads are left out.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from recipe.report.metrics import parse
from recipe.runfile.schema import Watch
from recipe.watch.history import Context
from recipe.watch.watch import Breach, Watcher

HERE = Path(__file__).parent
VOCABULARY = 640
SIM = Context(vocabulary=VOCABULARY, kl_coefficient=0.001)
Line = dict[str, Any]


def recorded(name: str) -> list[Line]:
    """The lines of a metrics file."""
    return [json.loads(line) for line in (HERE / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def going_on(lines: list[Line], steps: int) -> list[Line]:
    """The recorded lines, and copies of the last of them until there are so many steps."""
    last = lines[-1]
    return lines + [{"step": number, "data": dict(last["data"])} for number in range(last["step"] + 1, steps + 1)]


def changed(lines: list[Line], steps: Iterable[int], **values: Any) -> list[Line]:
    """Copies of the lines in which these steps have other values, by names with "/" as "__"; `...`: none at all.

    A callable gets the recorded value.
    """
    lines = copy.deepcopy(lines)
    for line in lines:
        if line["step"] not in steps:
            continue
        for name, value in values.items():
            key = name.replace("__", "/")
            if value is ...:
                line["data"].pop(key, None)
            else:
                line["data"][key] = value(line["data"][key]) if callable(value) else value
    return lines


def findings(lines: Iterable[Line], context: Context = SIM, settings: Watch | None = None) -> list[Breach]:
    """What the rules say of these lines, the way the launcher reads them: until the first stop."""
    watch = Watcher(settings or Watch(), context)
    breaches: list[Breach] = []
    for line in lines:
        step = parse(json.loads(json.dumps(line)))
        assert step is not None
        breaches += watch.feed(step)
        if any(breach.kind == "stop" for breach in breaches):
            break
    return breaches


def said(breaches: Iterable[Breach]) -> list[tuple[str, str, int]]:
    """Rule, kind and step of each finding."""
    return [(breach.rule, breach.kind, breach.step) for breach in breaches]
