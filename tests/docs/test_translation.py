# SPDX-License-Identifier: Apache-2.0
"""Both languages say the same: block by block the same commands, figures, names, links and rows; and read as theirs."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from tests.docs import translation
from tests.docs.pages import PAGES, headings, text
from tests.docs.translation import CHINESE, ENGLISH, HAN, MADE_FROM, blocks, differences, parse, switch, target, written

# What a user of the 256-die run needs.
_PAGES = ("LAUNCH", "CONFIG", "PLAN", "PREFLIGHT", "DATA", "WEIGHTS", "REWARDS", "FROM_OTHER_RECIPES")
NEEDED = {"README.md", *(f"docs/{name}.md" for name in _PAGES)}
PAIRS = list(CHINESE.items())
# What reads as set by somebody who does not write Chinese.
_UNUSUAL = {
    "half-width punctuation": rf"{HAN}[,;:?!(]|[,;:?!)]{HAN}",
    "no space beside Latin letters or figures": rf"{HAN}[A-Za-z0-9`]|[A-Za-z0-9`]{HAN}",
    "a line that ends within a clause": rf"(?:{HAN}|\w)\n(?:{HAN}|[\w`])",
}


def test_every_page_that_a_large_run_needs_is_there_in_chinese() -> None:
    assert set(CHINESE) >= NEEDED and set(PAGES) >= {*CHINESE, *ENGLISH} and set(CHINESE) >= set(MADE_FROM)


@pytest.mark.parametrize(("english", "chinese"), PAIRS)
def test_each_leads_to_the_other_below_its_title(english: str, chinese: str) -> None:
    for page, other in ((english, chinese), (chinese, english)):
        (link,) = re.findall(r"\]\((\S+)\)", switch(parse(text(page), page)).content)
        assert target(link, page) == english and link.endswith(other.removeprefix("docs/"))


@pytest.mark.parametrize(("english", "chinese"), PAIRS)
def test_both_say_the_same(english: str, chinese: str) -> None:
    by_hand, _ = written(english)
    found = blocks(chinese)
    wrong = differences(by_hand, found[: len(by_hand)] if english in MADE_FROM else found)
    assert not wrong, f"{english} and {chinese}:\n" + "\n".join(wrong)


@pytest.mark.parametrize("english", MADE_FROM)
def test_a_row_leads_to_every_section_that_a_program_makes_and_says_what_it_says(english: str) -> None:
    by_hand, made = written(english)
    rows = [row for row in blocks(CHINESE[english])[len(by_hand) :] if row.kind == "row" and row.facts[1].links]
    begins = [n for n, block in enumerate(made) if block.kind.startswith("#")]
    sections = [made[begin:end] for begin, end in zip(begins, [*begins[1:], len(made)], strict=True)]
    assert [set(row.facts[1].links) for row in rows] == [{target(f"#{name}", english)} for name in headings(english)][
        -len(sections) :
    ]
    for section, row in zip(sections, rows, strict=True):
        said = [block.facts[0] for block in section if block.kind == "paragraph"]
        assert sum((one.code for one in said), Counter()) == row.facts[2].code, row.content
        assert sum((one.figures for one in said), Counter()) == row.facts[2].figures, row.content


def plain(page: str) -> list[str]:
    """The prose of a page, with a mark where inline code stands and without where links lead."""
    prose = [block.content for block in blocks(page) if not block.kind.startswith("block of ")]
    return [re.sub(r"`[^`]*`", "`", re.sub(r"\]\([^)]*\)", "", content)) for content in prose]


@pytest.mark.parametrize("page", ENGLISH)
@pytest.mark.parametrize("what", _UNUSUAL)
def test_chinese_is_set_as_chinese_is(page: str, what: str) -> None:
    hits = [(prose, hit) for prose in plain(page) for hit in re.finditer(_UNUSUAL[what], prose)]
    assert not hits, [prose[max(0, hit.start() - 20) : hit.end() + 20] for prose, hit in hits]


@pytest.mark.parametrize("page", ENGLISH)
def test_bold_text_is_bold(page: str) -> None:
    """Markdown does not take asterisks between punctuation and a letter for the begin or end of bold text."""
    for before, bold, after in re.findall(r"(\w?)\*\*(.+?)\*\*(\S?)", " ".join(plain(page))):
        assert not (before and re.match(r"\W", bold)) and not (after and re.search(r"[^\w`]$", bold)), f"{page}: {bold}"


ENGLISH_TEXT = """# Title

[中文版](zh/DATA.md)

Ten of `train.parquet`, 0.9 of them; see [the rest](LAUNCH.md#the-container).

```bash
python -m recipe show RUN.toml --json   # 256 dies
```

| key | 64 |
|---|---|
| `--dry-run` | 1,342 |

```
configs ── show ──► 3 steps
```
"""
CHINESE_TEXT = """# 标题

[English](../DATA.md)

`train.parquet` 中的十个占 0.9。[其余](LAUNCH.md#容器)

```bash
python -m recipe show RUN.toml --json   # 256 个 die
```

| 键 | 64 |
|---|---|
| `--dry-run` | 1,342 |

```
configs ── show ──► 3 步
```
"""


def test_a_faithful_translation_has_no_differences() -> None:
    pages = parse(ENGLISH_TEXT, "docs/DATA.md"), parse(CHINESE_TEXT, "docs/zh/DATA.md")
    assert not differences(pages[0][2:], pages[1][2:])


@pytest.mark.parametrize(
    ("said", "instead"),
    [
        ("--json ", ""),
        ("256 dies", "128 dies"),
        ("```bash\n", "```bash\npython -m recipe doctor\n"),
        ("| key | 64 |\n", "| key | 64 |\n| more | 1 |\n"),
        ("| `--dry-run` | 1,342 |", "| 1,342 | `--dry-run` |"),
        ("1,342", "1,324"),
        ("0.9 of them", "0.9 of 30"),
        ("`train.parquet`", "`test.parquet`"),
        ("#the-container", "#what-happens"),
        ("LAUNCH.md#the-container", "PLAN.md"),
        ("3 steps", "4 steps"),
        ("── show ──", "── ──"),
        ("```\nconfigs", "```\nRUN.toml\nconfigs"),
        ("# Title", "## Title"),
        ("# Title\n", "# Title\n\nOne paragraph more.\n"),
        ("3 steps\n```\n", "3 steps\n```\n\nAt the end.\n"),
    ],
)
def test_what_one_language_alone_says_is_found(said: str, instead: str) -> None:
    assert said in ENGLISH_TEXT
    changed = parse(ENGLISH_TEXT.replace(said, instead), "docs/DATA.md")
    chinese = parse(CHINESE_TEXT, "docs/zh/DATA.md")
    assert differences([one for one in changed if "中文版" not in one.content], [chinese[0], *chinese[2:]])


def test_the_page_of_a_page_is_itself_or_its_english_one() -> None:
    assert translation.original("docs/zh/PLAN.md") == translation.original("docs/PLAN.md") == "docs/PLAN.md"
