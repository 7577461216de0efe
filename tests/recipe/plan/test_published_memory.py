# SPDX-License-Identifier: Apache-2.0
"""The plan's memory beside published figures, and the table of docs/PLAN.md."""

from __future__ import annotations

from pathlib import Path

import pytest

from recipe.plan.published_memory import ROWS, PublishedMemory, published_memory_table

DOCS = Path(__file__).resolve().parents[3] / "docs"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_the_plan_is_within_a_tenth_of_what_was_published(row: PublishedMemory) -> None:
    planned, phase = row.planned_gib()
    assert planned == pytest.approx(row.gib, rel=0.1), phase


def test_the_documented_table_is_the_computed_one() -> None:
    text = (DOCS / "PLAN.md").read_text(encoding="utf-8").splitlines()
    missing = [line for line in published_memory_table() if line not in text]
    assert not missing, "docs/PLAN.md lacks\n" + "\n".join(missing)
