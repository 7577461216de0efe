# SPDX-License-Identifier: Apache-2.0
"""Events at a step that its curves do not show: `marks.jsonl` of a run directory, drawn in the report.

A mark is written by whoever notices: the watch over the training (a warning, a stop), a resume under other settings.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from recipe.recorder import append_line, read_lines

FILE = "marks.jsonl"
# A rule of the watch warned; a rule ended the run; the run went on with other settings.
KINDS = WARNING, STOP, SETTING = ("warning", "stop", "setting")


@dataclass(frozen=True)
class Mark:
    """One line of the file: the step it belongs to, one of KINDS, the name of the rule or key, and a sentence."""

    step: int
    kind: str
    name: str
    text: str


def add_mark(run_dir: Path, mark: Mark) -> None:
    """Append a mark to the run's file, with the time of writing (seconds since the epoch)."""
    line = {"time": time.time(), "step": mark.step, "kind": mark.kind, "name": mark.name, "text": mark.text}
    append_line(run_dir / FILE, line)


def read_marks(run_dir: Path) -> list[Mark]:
    """The marks of a run, in the order in which they were written; lines of another form are left out."""
    marks = []
    for line in read_lines(run_dir / FILE):
        step, kind, name, text = (line.get(key) for key in ("step", "kind", "name", "text"))
        if isinstance(step, int) and kind in KINDS and isinstance(name, str) and isinstance(text, str):
            marks.append(Mark(step, kind, name, text))
    return marks
