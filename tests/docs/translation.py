# SPDX-License-Identifier: Apache-2.0
"""A page as what a translation must keep: its blocks in order, and in each the figures, inline code and links."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import PurePosixPath

from tests.docs.pages import REPO, headings, text

# English page -> Chinese page.
CHINESE = {"README.md": "README_zh.md"} | {f"docs/{file.name}": f"docs/zh/{file.name}" for file in REPO.glob("docs/zh/*")}
ENGLISH = {chinese: english for english, chinese in CHINESE.items()}
# Generated pages, of which the introduction is translated: what the first heading that is not begins with.
GENERATED_FROM = {"docs/CONFIG.md": "### [", "docs/PREFLIGHT.md": "## C: "}

_FIGURE = re.compile(r"[\d⁰¹²³⁴-⁹]+")
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")
_CODE = re.compile(r"(?<!`)`([^`]+)`(?!`)")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_ITEM = re.compile(r"(?:[-*]|\d+\.) ")
HAN = re.compile(r"[\u4e00-\u9fff]")


@dataclass(frozen=True)
class Block:
    """A heading, a paragraph, an item of a list, a row of a table, or what stands between fences."""

    kind: str
    content: str
    facts: list[object] = field(compare=False)


def original(page: str) -> str:
    """The English page of `page`, which may be that page itself."""
    return ENGLISH.get(page, page)


@cache
def blocks(page: str) -> list[Block]:
    """The blocks of a page from its title on, without the line that leads to the other language."""
    return [block for block in parse(text(page), page) if not block.content.startswith(("[中文", "[English]"))]


def introduction(page: str) -> list[Block]:
    """The blocks before the generated part; all of them where nothing is generated."""
    generated = GENERATED_FROM.get(page)
    found = blocks(page)
    ends = [n for n, block in enumerate(found) if generated and block.content.startswith(generated)]
    assert ends or not generated, f"{page}: nothing begins with {generated!r}"
    return found[: ends[0]] if ends else found


def parse(markdown: str, page: str) -> list[Block]:
    return [Block(kind, content, _facts(kind, content, page)) for kind, content in _pieces(markdown)]


def _pieces(markdown: str) -> Iterator[tuple[str, str]]:
    """Kind and content of each block: fenced ones whole, lines of prose joined."""
    lines = iter([*markdown.splitlines(), ""])
    kind, prose = "paragraph", list[str]()
    for line in lines:
        item = _ITEM.match(line)
        begins = re.match(r"```|#|\||<!--", line) or not line.strip() or item
        if begins and prose:
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


def _facts(kind: str, content: str, page: str) -> list[object]:
    """What is the same in every language. Of a row for each cell, of a fenced block for each line."""
    if kind == "row":
        return [_of_prose(cell, page) for cell in re.split(r"(?<!\\)\|", content)]
    if kind.startswith("block of "):
        return [_of_line(line, kind.endswith(" text")) for line in content.splitlines()]
    return [_of_prose(content, page)]


def _of_prose(prose: str, page: str) -> tuple[Counter[str], ...]:
    """Figures and inline code in any order, since languages order them otherwise; and where the links lead."""
    code = [" ".join(span.split()) for span in _CODE.findall(prose)]
    plain = _CODE.sub("", prose)
    links = [_target(link, page) for link in _LINK.findall(plain)]
    return Counter(_FIGURE.findall(_LINK.sub("", plain))), Counter(code), Counter(links), Counter(re.findall(r"\*\*", plain))


def _of_line(line: str, of_text: bool) -> tuple[str, tuple[str, ...]]:
    """Code as it stands, and the figures of its comment; of a drawing or another text the figures."""
    if of_text:
        return "", tuple(sorted(_FIGURE.findall(line)))
    code, comment = (re.split(r"(?:^|\s+)#\s(?!\w+ = )", line, maxsplit=1) + [""])[:2]
    return code, tuple(sorted(_FIGURE.findall(comment)))


def _target(link: str, page: str) -> str:
    """A link as both languages have it: the English page's path, and the number of the heading that is meant."""
    if "://" in link:
        return link
    path, _, anchor = link.partition("#")
    target = _normal(PurePosixPath(page).parent / path) if path else page
    number = f"#{headings(target).index(anchor)}" if anchor else ""
    return original(target) + number


def _normal(path: PurePosixPath) -> str:
    parts: list[str] = []
    for part in path.parts:
        parts = parts[:-1] if part == ".." else [*parts, part]
    return "/".join(parts)


def differences(english: list[Block], chinese: list[Block]) -> list[str]:
    """What the second lacks of the first or has beside it, a line each; nothing when they say the same."""
    kinds = [[block.kind for block in one] for one in (english, chinese)]
    if kinds[0] != kinds[1]:
        n = next((n for n, (a, b) in enumerate(zip(*kinds, strict=False)) if a != b), min(map(len, kinds)))
        found = [f"{one[n].kind}: {one[n].content[:100]!r}" if n < len(one) else "its end" for one in (english, chinese)]
        return [f"{found[0]} stands where the other has {found[1]}"]
    return [
        f"{a.kind}: {a.content!r}\n  and {b.content!r}\n  differ in {_difference(a.facts, b.facts)}"
        for a, b in zip(english, chinese, strict=True)
        if a.facts != b.facts or not _says_no_more(a, b)
    ]


def _difference(one: list[object], other: list[object]) -> str:
    if len(one) != len(other):
        return f"their parts: {len(one)} and {len(other)}"
    pairs = [(a, b) for a, b in zip(one, other, strict=True) if a != b]
    return "; ".join(f"{a} and {b}" for a, b in pairs) or "what is written between the fences"


def _says_no_more(english: Block, chinese: Block) -> bool:
    """Whether a text between fences is the same, or a translation that names only what the other names."""
    if chinese.kind != "block of text" or chinese.content == english.content:
        return True
    return bool(HAN.search(chinese.content)) and all(
        set(_WORD.findall(b)) <= set(_WORD.findall(a))
        for a, b in zip(english.content.splitlines(), chinese.content.splitlines(), strict=True)
    )
