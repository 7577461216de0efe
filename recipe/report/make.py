# SPDX-License-Identifier: Apache-2.0
"""Makes the report of a run directory: `summary.json`, the PNGs and `report.html`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from recipe.report.answers import sampled_answers
from recipe.report.page import page
from recipe.report.plots import draw_all
from recipe.report.summary import summarise
from recipe.runfile.masking import masked_run_file


def make_report(run_dir: Path) -> dict[str, Any]:
    """Write the report's files and return the summary. Files appear whole; earlier ones are replaced."""
    summary = summarise(run_dir)
    _write(run_dir / "summary.json", json.dumps(summary, indent=2) + "\n")
    answers, first, last = sampled_answers(run_dir)
    html = page(run_dir.name, summary, draw_all(run_dir), answers, first, last, _text(run_dir / "run.toml"))
    _write(run_dir / "report.html", html)
    return summary


def _text(path: Path) -> str | None:
    return masked_run_file(path.read_text(encoding="utf-8", errors="replace")) if path.is_file() else None


def _write(path: Path, text: str) -> None:
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.write_text(text, encoding="utf-8")
    os.replace(unfinished, path)
