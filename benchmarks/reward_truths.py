# SPDX-License-Identifier: Apache-2.0
"""How many truths of a data set the grammar reads, and whether each is the same answer as itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from recipe.reward.grade import alternatives, grade_answer
from recipe.reward.grammar.answers import read
from recipe.reward.verdict import Verdict

HOW_TO_GET_THEM = (
    "readable_deepscaler is left out: give --truths deepscaler=FILE with deepscaler.json of the DeepScaleR-Preview "
    "data set, https://huggingface.co/datasets/agentica-org/DeepScaleR-Preview-Dataset"
)
_FIELDS = ("answer", "final_answer")
_EXAMPLES = 20


def files(named: list[str]) -> dict[str, Path]:
    """The files by name. Ends with what is wrong where one is not there."""
    by_name = {}
    for option in named:
        name, sign, path = option.partition("=")
        if not sign or not name.isidentifier() or not Path(path).is_file():
            raise SystemExit(f"error: --truths {option!r} is no NAME=FILE of a file that is there")
        by_name[name] = Path(path)
    return by_name


def readable(name: str, path: Path) -> dict[str, Any]:
    """The share of truths that are read, with examples of the rest, and the number that are not equal to themselves."""
    truths = list(truths_of(path))
    if not truths:
        raise SystemExit(f"error: {path} has no record with {' or '.join(_FIELDS)}")
    unread = [truth for truth in truths if read(truth) is None]
    unequal = sum(grade_answer(truth, truth) is not Verdict.CORRECT for truth in truths)
    return {
        f"readable_{name}": round(1 - len(unread) / len(truths), 4),
        f"truths_{name}": len(truths),
        f"unequal_to_themselves_{name}": unequal,
        f"unread_{name}": unread[:_EXAMPLES],
    }


def truths_of(path: Path) -> Iterator[str]:
    """The truths of a file that are not blank; of several accepted ones each."""
    text = path.read_text(encoding="utf-8")
    records = (
        json.loads(text) if text.lstrip().startswith("[") else map(json.loads, filter(str.strip, text.splitlines()))
    )
    for record in records:
        value = next((record[field] for field in _FIELDS if record.get(field) is not None), None)
        yield from alternatives(value)
