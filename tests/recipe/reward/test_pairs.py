# SPDX-License-Identifier: Apache-2.0
"""Labelled pairs of every kind: what is right is paid, what is wrong is not, and the page's table is true."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from recipe.reward.grade import grade_answer
from recipe.reward.verdict import Verdict

PAIRS = [json.loads(line) for line in Path(__file__).with_name("pairs.jsonl").read_text("utf-8").splitlines()]
PAGE = Path(__file__).parents[3] / "docs" / "REWARDS.md"
FEWEST = 5


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: f"{pair['kind']}: {pair['answer']} for {pair['truth']}")
def test_each_pair_has_the_verdict_of_its_label(pair: dict[str, str]) -> None:
    verdict = grade_answer(pair["answer"], pair["truth"])
    assert (verdict is Verdict.CORRECT) == pair["pay"], verdict
    assert verdict in (Verdict.CORRECT, Verdict.WRONG, Verdict.UNPARSEABLE)


def test_each_kind_has_enough_pairs() -> None:
    right = Counter(pair["kind"] for pair in PAIRS if pair["pay"])
    wrong = Counter(pair["kind"] for pair in PAIRS if not pair["pay"])
    # Of what has no value, and of several answers in one, nothing is right.
    assert {kind for kind in wrong if right[kind] < FEWEST} == {"no finite value", "several answers"}
    assert min(wrong.values()) >= FEWEST


def table() -> str:
    """The table of docs/REWARDS.md."""
    counts: dict[str, Counter[str]] = {}
    for pair in PAIRS:
        verdict = grade_answer(pair["answer"], pair["truth"]).value
        counts.setdefault(pair["kind"], Counter())[f"{pair['pay']} {verdict}"] += 1
    lines = [
        "| kind | right: `correct` | wrong: `wrong` | wrong: `unparseable` | paid wrongly |",
        "|---|---|---|---|---|",
    ]
    for kind, count in counts.items():
        figures = (count["True correct"], count["False wrong"], count["False unparseable"], count["False correct"])
        lines.append(f"| {kind} | " + " | ".join(str(figure) for figure in figures) + " |")
    return "\n".join(lines)


def test_the_page_has_the_table_of_kinds_and_verdicts() -> None:
    assert table() in PAGE.read_text("utf-8"), f"put this table into {PAGE.name}:\n{table()}"
