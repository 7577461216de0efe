# SPDX-License-Identifier: Apache-2.0
"""The tables of what `plan --fit` finds, in docs/PLAN.md and its Chinese twin."""

from __future__ import annotations

from pathlib import Path

import pytest

from recipe.models.families import FAMILIES
from recipe.models.published import CONFIGS
from recipe.plan import fit_table
from recipe.plan.fit_table import BEGIN, END, MODELS, PAGES, PAIRS, find, row, table

# A cell of each family that is found at once, and one where there is nothing to find.
QUICK = [
    ("moonlight_16b_a3b", "a2_64"),
    ("kimi_k2", "a2_64"),
    ("qwen3_30b_a3b", "a100_80"),
    ("qwen3_8b", "h200_141"),
    ("qwen2_5_7b", "a2_64"),
    ("llama3_1_8b", "a3_128"),
]


def lines(page: Path) -> list[str]:
    """What stands in the page between the marks."""
    return page.read_text(encoding="utf-8").split(BEGIN)[1].split(END)[0].strip().splitlines()


@pytest.mark.parametrize("pair", QUICK, ids="-".join)
def test_rows_are_what_the_command_finds_now(pair: tuple[str, str]) -> None:
    found = find(*pair)
    for page, words in PAGES.items():
        assert row(*pair, found, words) in lines(page), "run: python -m recipe.plan.fit_table"


@pytest.mark.slow
def test_every_row_is_what_the_command_finds_now() -> None:
    found = {pair: find(*pair) for pair in PAIRS}
    for page, words in PAGES.items():
        assert lines(page) == list(table(words, found)), "run: python -m recipe.plan.fit_table"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name)
def test_the_pages_have_a_row_for_every_pair(page: Path) -> None:
    head, _, *rows = lines(page)
    assert head == PAGES[page].head
    cells = [line.split(" | ") for line in rows]
    assert [(cell[0], cell[1]) for cell in cells] == [(f"| `{model}`", f"`{hardware}`") for model, hardware in PAIRS]


def test_there_is_a_member_of_every_family() -> None:
    assert {CONFIGS[model]["model_type"] for model in MODELS} == set(FAMILIES)


def test_the_command_replaces_what_stands_between_the_marks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = ("llama3_1_8b", "a3_128")
    page = tmp_path / "PLAN.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n", encoding="utf-8")
    (words, *_) = PAGES.values()
    monkeypatch.setattr(fit_table, "PAIRS", (pair,))
    monkeypatch.setattr(fit_table, "PAGES", {page: words})
    assert fit_table.main() == 0
    whole = page.read_text(encoding="utf-8").splitlines()
    assert whole[:2] == ["before", BEGIN] and whole[-2:] == [END, "after"]
    assert whole[2:-2] == [words.head, "|---|---|---:|---|---|---|---:|---:|", row(*pair, find(*pair), words)]
