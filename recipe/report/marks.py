# SPDX-License-Identifier: Apache-2.0
"""What happened at a step that its curves do not say: `marks.jsonl` of a run directory, shown in the report.

A mark is written by whoever notices: the watch over the training (a warning, a stop), a resume under other settings.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recipe.report.recorder import append_line, read_lines

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


def forget_after(run_dir: Path, step: int, aside: Path) -> None:
    """Take what the watch marked after `step` out of the run's file, for a run that does these steps again.

    The file as it was is kept in the directory `aside`.
    """
    path = run_dir / FILE
    if not path.is_file():
        return
    shutil.copyfile(path, aside / FILE)
    kept = [line for line in read_lines(path) if not (line.get("kind") in (WARNING, STOP) and _is_after(line, step))]
    unfinished = run_dir / f".{FILE}.unfinished"
    unfinished.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
    os.replace(unfinished, path)


def _is_after(line: dict[str, Any], step: int) -> bool:
    number = line.get("step")
    return isinstance(number, int) and number > step


def read_marks(run_dir: Path) -> list[Mark]:
    """The marks of a run, in the order in which they were written; lines of another form are left out."""
    marks = []
    for line in read_lines(run_dir / FILE):
        step, kind, name, text = (line.get(key) for key in ("step", "kind", "name", "text"))
        if isinstance(step, int) and kind in KINDS and isinstance(name, str) and isinstance(text, str):
            marks.append(Mark(step, kind, name, text))
    return marks
