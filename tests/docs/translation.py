# SPDX-License-Identifier: Apache-2.0
"""A page as what a translation must keep: its blocks in order, and in each the figures, inline code and links."""

from __future__ import annotations

import os.path
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from tests.docs.pages import REPO, headings, text

# English page -> Chinese page.
CHINESE = {"README.md": "README_zh.md"} | {
    f"docs/{file.name}": f"docs/zh/{file.name}" for file in sorted(REPO.glob("docs/zh/*.md"))
}
ENGLISH = {chinese: english for english, chinese in CHINESE.items()}
# Pages made by the program, of which the introduction alone is translated: how their first made heading begins.
MADE_FROM = {"docs/CONFIG.md": "### [", "docs/PREFLIGHT.md": "## C: "}

HAN = r"[\u4e00-\u9fff]"
_FIGURE = re.compile(r"[\d⁰¹²³⁴-⁹]+(?:[.,]\d+)*")
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")
_CODE = re.compile(r"(?<!`)`([^`]+)`(?!`)")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_ITEM = re.compile(r"(?:[-*]|\d+\.) ")


class Prose(NamedTuple):
    """What is the same in every language: languages have it in other orders."""

    figures: Counter[str]
    code: Counter[str]
    links: Counter[str]
    bold: int


class Line(NamedTuple):
    """A line between fences: code as it stands, and the figures of a comment, drawing or table."""

    code: str
    figures: Counter[str]


@dataclass(frozen=True)
class Block:
    """A heading, a paragraph, an item of a list, a row of a table, or what stands between fences."""

    kind: str
    content: str
    facts: list[Prose] | list[Line]


def original(page: str) -> str:
    """The English page of `page`, which may be that page itself."""
    return ENGLISH.get(page, page)


@cache
def blocks(page: str) -> list[Block]:
    """The blocks of a page, without the line that leads to the other language."""
    whole_page = parse(text(page), page)
    return [block for block in whole_page if block is not switch(whole_page)]


def switch(whole_page: list[Block]) -> Block:
    """Where the line stands that leads to the other language: below the title."""
    return whole_page[1]


def parse(markdown: str, page: str) -> list[Block]:
    """The blocks of a text that stands in `page`."""
    return [Block(kind, content, _facts(kind, content, page)) for kind, content in _pieces(markdown)]


def written(page: str) -> tuple[list[Block], list[Block]]:
    """The blocks of an English page that are written by hand, and those that a program makes."""
    all_blocks = blocks(page)
    if page not in MADE_FROM:
        return all_blocks, []
    begin = next(n for n, block in enumerate(all_blocks) if block.content.startswith(MADE_FROM[page]))
    return all_blocks[:begin], all_blocks[begin:]


def _pieces(markdown: str) -> Iterator[tuple[str, str]]:
    """Kind and content of each block: fenced ones whole, the lines of prose together."""
    lines = iter([*markdown.splitlines(), ""])
    kind, prose = "paragraph", list[str]()
    for line in lines:
        item = _ITEM.match(line)
        if prose and (item or not line.strip() or re.match(r"```|#|\||<!--", line)):
            yield kind, "\n".join(prose)
            kind, prose = "paragraph", []
        if line.startswith("```"):
            yield f"block of {line[3:] or 'text'}", "\n".join(iter(lambda: next(lines), "```"))
        elif line.startswith("#"):
            yield line.split()[0], line
        elif line.startswith("|"):
            yield "row", line
        elif line.strip():
            kind = "item" if item else kind
            prose.append(line[item.end() :] if item else line.strip())


def _facts(kind: str, content: str, page: str) -> list[Prose] | list[Line]:
    """Of a row for each cell, of a fenced block for each line."""
    if kind == "row":
        return [_prose(cell, page) for cell in re.split(r"(?<!\\)\|", content)]
    if kind.startswith("block of "):
        return [_line(line, kind) for line in content.splitlines()]
    return [_prose(content, page)]


def _prose(content: str, page: str) -> Prose:
    code = Counter(" ".join(span.split()) for span in _CODE.findall(content))
    plain = _CODE.sub("", content)
    links = Counter(target(link, page) for link in _LINK.findall(content))
    return Prose(Counter(_FIGURE.findall(_LINK.sub("", plain))), code, links, plain.count("**"))


def _line(line: str, kind: str) -> Line:
    if kind == "block of text":
        return Line("", Counter(_FIGURE.findall(line)))
    code, *comment = re.split(r"(?:^|\s+)#\s(?!\w+ = )", line, maxsplit=1)
    return Line(code, Counter(_FIGURE.findall("".join(comment))))


def target(link: str, page: str) -> str:
    """A link of `page` as both languages have it: the English page, and the number of the heading that is meant."""
    if "://" in link:
        return link
    path, _, anchor = link.partition("#")
    file = os.path.normpath(os.path.join(os.path.dirname(page), path)) if path else page
    return original(file) + (f"#{headings(file).index(anchor)}" if anchor else "")


def differences(english: list[Block], chinese: list[Block]) -> list[str]:
    """What one has and the other lacks, a text for each place; nothing when both say the same."""
    pairs = list(zip(english, chinese, strict=False))
    for block, translated in pairs:
        if block.kind != translated.kind:
            return [
                f"{block.kind} {block.content[:120]!r} stands where the translation has "
                f"{translated.kind} {translated.content[:120]!r}"
            ]
    beyond = [*english[len(chinese) :], *chinese[len(english) :]]
    unlike = filter(None, (_difference(block, translated) for block, translated in pairs))
    return [*unlike, *(f"in one language only: {block.content[:120]!r}" for block in beyond)]


def _difference(english: Block, chinese: Block) -> str:
    where = f"{english.kind} {english.content!r}\n  and {chinese.content!r}"
    if len(english.facts) != len(chinese.facts):
        return f"{where}\n  have {len(english.facts)} and {len(chinese.facts)} cells or lines"
    for facts, translated in zip(english.facts, chinese.facts, strict=True):
        if facts != translated:
            return f"{where}\n  differ in {_unlike(facts, translated)}"
    added = _added(english.content, chinese.content) if chinese.kind == "block of text" else set()
    return f"{where}\n  differ in {added}" if added else ""


def _unlike(facts: tuple[object, ...], translated: tuple[object, ...]) -> str:
    """What one language has and the other lacks, both ways."""
    counters = [
        (english - chinese, chinese - english)
        for english, chinese in zip(facts, translated, strict=True)
        if isinstance(english, Counter) and isinstance(chinese, Counter)
    ]
    unlike = [f"{sorted(lost.elements())} and {sorted(added.elements())}" for lost, added in counters if lost or added]
    return "; ".join(unlike) or f"{facts} and {translated}"


def _added(english: str, chinese: str) -> set[str]:
    """Latin words of a drawing that the English one has not; where none is translated, whatever differs."""
    if not re.search(HAN, chinese):
        return set() if english == chinese else {chinese}
    known = {form for word in _WORD.findall(english) for form in (word, word.removesuffix("s"))}
    return set(_WORD.findall(chinese)) - known
