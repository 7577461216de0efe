# SPDX-License-Identifier: Apache-2.0
"""The pages a person reads, taken apart: blocks, inline code, links, headings, and the commands in them."""

from __future__ import annotations

import re
import shlex
from functools import cache
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
PAGES = tuple(
    str(path.relative_to(REPO))
    for path in (
        *sorted(REPO.glob("*.md")),
        *sorted(REPO.glob("docs/**/*.md")),
        REPO / "npu_sim" / "README.md",
    )
)
# Its commands are about files that it tells its reader to write: tests/docs/test_contributing.py follows it.
FOLLOWED = "CONTRIBUTING.md"
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
# A block that is a file, below the line that names it.
_FILE_BLOCK = re.compile(r"^`([\w./]+)`:\n\n```\w+\n(.*?)^```", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"(?<!`)`([^`\n]+(?:\n[^`\n]+)?)`(?!`)")
# What a line of an unlabelled block, or inline code, begins with when it is something to type.
_TYPED = re.compile(
    r"(?:\.venv/bin/)?(?:python3?|pip) |bash |scripts/\S+\.(?:sh|py)\b|benchmarks/\S+\.py\b|\w+\.py .*--"
)


@cache
def text(page: str) -> str:
    return (REPO / page).read_text(encoding="utf-8")


def blocks(page: str) -> list[tuple[str, str]]:
    """Language and content of each fenced block."""
    return _BLOCK.findall(text(page))


def files(page: str) -> dict[str, str]:
    """The files that the page shows whole, for its reader to write."""
    return dict(_FILE_BLOCK.findall(text(page)))


def spans(page: str) -> list[str]:
    """Inline code, each on one line."""
    return [" ".join(span.split()) for span in _SPAN.findall(_BLOCK.sub("", text(page)))]


def headings(page: str) -> list[str]:
    """The anchors of the page's headings in their order, as GitHub makes them."""
    found = re.findall(r"^#+ (.*)$", _BLOCK.sub("", text(page)), re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in found]


def links(page: str) -> list[tuple[str, str]]:
    """Path ("" for this page) and anchor of each link that leads into this tree."""
    found = re.findall(r"\]\(([^)\s]+)\)", _BLOCK.sub("", text(page)))
    return [link.partition("#")[::2] for link in found if "://" not in link]


def commands(page: str) -> list[str]:
    """What the page says to type: lines of its blocks, and inline code that is a command with something behind it."""
    found = []
    for language, block in blocks(page):
        lines = block.replace("\\\n", " ").splitlines()
        if language == "bash":
            found += lines
        elif not language:
            found += [line for line in lines if _TYPED.match(line)]
    found += [span for span in spans(page) if _TYPED.match(span)]
    without_comments = (shlex.join(shlex.split(line, comments=True)) if "#" in line else line for line in found)
    return [" ".join(line.split()) for line in without_comments if line.strip()]


def bare_options(page: str) -> list[str]:
    """Options that stand in inline code without their tool: `--dry-run`, `--target-{tensor,pipeline}-parallel-size`."""
    found = []
    for span in spans(page):
        if span.startswith("--"):
            names = re.findall(r"--[\w{},-]+", span)
            found += [name for one in names for name in _expanded(one)]
    return found


def _expanded(name: str) -> list[str]:
    braces = re.search(r"\{([^}]*)\}", name)
    return [name.replace(braces[0], one) for one in braces[1].split(",")] if braces else [name]
