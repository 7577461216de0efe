# SPDX-License-Identifier: Apache-2.0
"""Makes the report of a run directory: `summary.json`, the PNGs and `report.html`; and one picture of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from recipe.files import write_atomically
from recipe.report.answers import sampled_answers
from recipe.report.curves import curves
from recipe.report.metrics import read_steps
from recipe.report.page import page
from recipe.report.picture import picture
from recipe.report.plots import draw_all
from recipe.report.summary import summarise
from recipe.runfile.masking import masked_run_file


def make_report(run_dir: Path) -> dict[str, Any]:
    """Write the report's files and return the summary. Files appear whole; earlier ones are replaced."""
    summary = summarise(run_dir)
    write_atomically(run_dir / "summary.json", json.dumps(summary, indent=2) + "\n")
    answers, first, last = sampled_answers(run_dir)
    html = page(run_dir.name, summary, draw_all(run_dir), answers, first, last, _text(run_dir / "run.toml"))
    write_atomically(run_dir / "report.html", html)
    return summary


def make_picture(run_dir: Path, summary: dict[str, Any], file: Path) -> bool:
    """Write the SVG of a run whose `summary` is given; False, and no file, where the run has no curve to show.

    Raises:
        OSError: it cannot be written.
    """
    svg = picture(run_dir.resolve().name, summary, curves(read_steps(run_dir / "metrics.jsonl")))
    if svg:
        write_atomically(file, svg)
    return bool(svg)


def _text(path: Path) -> str | None:
    return masked_run_file(path.read_text(encoding="utf-8", errors="replace")) if path.is_file() else None
