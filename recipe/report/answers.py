# SPDX-License-Identifier: Apache-2.0
"""Sampled answers before and after training, from verl's validation dumps (`validation/<step>.jsonl`)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recipe.recorder import read_lines

SHOWN = 3


@dataclass(frozen=True)
class Answer:
    """One problem, without the prompt's template, and a sampled answer of the first and of the last validation."""

    problem: str
    truth: str
    before: str
    before_score: float
    after: str
    after_score: float


def sampled_answers(run_dir: Path) -> tuple[list[Answer], int, int]:
    """`SHOWN` problems, evenly spread over the first validation, and the steps of both validations.

    For each problem it is the first answer of each dump, so nothing is picked for its score.
    """
    dumps = sorted((run_dir / "validation").glob("*.jsonl"), key=lambda path: _number(path))
    if not dumps:
        return [], 0, 0
    first, last = _first_by_problem(dumps[0]), _first_by_problem(dumps[-1])
    shared = [problem for problem in first if problem in last]
    template = _template_length(list(first))
    chosen = [shared[i * len(shared) // SHOWN] for i in range(min(SHOWN, len(shared)))]
    answers = [
        Answer(
            problem=problem[template:],
            truth=str(first[problem].get("gts", "")),
            before=str(first[problem].get("output", "")),
            before_score=float(first[problem].get("score", 0.0)),
            after=str(last[problem].get("output", "")),
            after_score=float(last[problem].get("score", 0.0)),
        )
        for problem in chosen
    ]
    return answers, _number(dumps[0]), _number(dumps[-1])


def _template_length(prompts: list[str]) -> int:
    """Length of what all prompts begin with, up to the end of a sentence or line: that is the template's part."""
    if len(prompts) < 2:
        return 0
    low, high = min(prompts), max(prompts)  # what the first and the last in sorted order begin with, all begin with
    length = next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), len(low))
    common = low[:length]
    return max(common.rfind(mark) for mark in (".", "\n")) + 1


def _number(path: Path) -> int:
    return int(path.stem) if path.stem.isdigit() else -1


def _first_by_problem(path: Path) -> dict[str, dict[str, Any]]:
    first_lines: dict[str, dict[str, Any]] = {}
    for line in read_lines(path):
        first_lines.setdefault(str(line.get("input", "")), line)
    return first_lines
