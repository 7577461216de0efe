# SPDX-License-Identifier: Apache-2.0
"""What a conversion made, for a person to check, and the same as JSON."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from recipe.data.parquet import Conversion
from recipe.data.rows import Row
from recipe.data.truths import DROP, Truths
from recipe.text import spelled_out

SAMPLES = 3
# Characters of a sample's prompt that are printed; the report has all of it.
SHOWN = 1500
# How many answers that cannot be matched are printed, and how many characters of each.
EXAMPLES, EXAMPLE = 5, 80
REASONS = {
    "empty_problem": "without a problem",
    "empty_answer": "without an answer",
    "duplicate_problem": "repeated problems",
    "conflicting_answer": "repeated problems with another answer than the first",
    "unreadable": "with an answer that the reward cannot match",
    "too_long": "with too long a prompt",
}


def report(made: Conversion, settings: dict[str, Any], render: Callable[[Row], str], written: bool) -> dict[str, Any]:
    """Everything about a conversion as a JSON object; equal for equal input and settings.

    ``render`` gives the prompt of a row as the model will see it. ``files`` is absent when nothing was written.
    """
    rows = [*made.train_rows, *made.test_rows]
    lengths: dict[str, Any] = {
        "problem_characters": spread([len(row.problem) for row in rows]),
        "answer_characters": spread([len(row.answer) for row in rows]),
        "solution_characters": spread([len(row.solution) for row in rows]),
    }
    if made.tokens is not None:
        lengths["prompt_tokens"] = spread(made.tokens)
    samples = [
        {"index": row.index, "ground_truth": row.truth, "prompt": render(row)} for row in made.train_rows[:SAMPLES]
    ]
    summary: dict[str, Any] = {
        "settings": settings,
        "records": made.read,
        "train": made.train,
        "test": made.test,
        "left_out": made.dropped.counts,
        "left_out_first_records": made.dropped.places,
        "answers": {
            "reduced": dict(sorted(made.truths.reduced.items())),
            "several_accepted": made.truths.several,
            "unreadable": dict(made.truths.unreadable.most_common()),
            "unreadable_examples": [{"index": index, "answer": answer} for index, answer in made.truths.examples],
        },
        "lengths": lengths,
        "samples": samples,
    }
    if written:
        paths = (made.train_path, made.test_path)
        summary["files"] = {path.name: {"bytes": path.stat().st_size, "sha256": _sha256(path)} for path in paths}
    return summary


def spread(values: Sequence[int]) -> dict[str, int]:
    """Least, middle, 95th percentile (nearest rank) and greatest of at least one value."""
    ordered = sorted(values)
    last = len(ordered) - 1
    return {
        "min": ordered[0],
        "median": ordered[last // 2],
        "p95": ordered[min(last, -(-95 * len(ordered) // 100) - 1)],
        "max": ordered[-1],
    }


def lines(made: Conversion, facts: dict[str, Any]) -> list[str]:
    """The summary that is printed: counts, lengths, and samples with the rendered prompt."""
    would = "" if "files" in facts else "would be written: "
    text = [f"{would}{made.train_path}: {made.train} rows", f"{would}{made.test_path}: {made.test} rows"]
    text.append(f"records read: {made.read}, left out: {made.dropped.total}")
    for reason, words in REASONS.items():
        if count := made.dropped.counts[reason]:
            places = made.dropped.places.get(reason, [])
            shown = ", ".join(map(str, places[:5])) + (", ..." if count > 5 else "")
            text.append(f"  {count} {words}" + (f" (records {shown})" if places else ""))
    text += _answer_lines(made.truths)
    text.append("lengths                  min   median      95%      max")
    for name, values in facts["lengths"].items():
        figures = "".join(f"{values[key]:9}" for key in ("min", "median", "p95", "max"))
        text.append(f"  {name.replace('_', ' '):17}{figures}")
    for sample in facts["samples"]:
        text.append(f"--- record {sample['index']}, ground truth: {spelled_out(str(sample['ground_truth']))}")
        prompt = sample["prompt"]
        more = f" ... ({len(prompt) - SHOWN} more characters)" if len(prompt) > SHOWN else ""
        text.append(spelled_out(prompt[:SHOWN]) + more)
    return text


def _answer_lines(truths: Truths) -> list[str]:
    """What was done to answers, and the kinds of those that cannot be matched; no line where nothing was."""
    text = [f"answers taken out of {what}: {count}" for what, count in sorted(truths.reduced.items())]
    if truths.several:
        text.append(f"problems with several accepted answers: {truths.several}; any of them is right")
    if truths.unreadable:
        done = "left out" if truths.policy == DROP else "kept, though nothing earns their reward"
        text.append(f"answers that {truths.verifier} cannot match: {truths.unreadable.total()}, {done}")
        text += [f"  {count} {kind}" for kind, count in truths.unreadable.most_common()]
        text += [f"  record {index}: {spelled_out(answer)[:EXAMPLE]}" for index, answer in truths.examples[:EXAMPLES]]
    return text


def write_report(path: Path, facts: dict[str, Any]) -> None:
    """Writes the report through a temporary file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.write_text(json.dumps(facts, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        digest = hashlib.sha256()
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
