# SPDX-License-Identifier: Apache-2.0
"""docs/LAUNCH.md explains what launchers say, in the words that they use."""

from __future__ import annotations

import re

import pytest

from recipe.runfile.paths import REPO

PAGE = (REPO / "docs" / "LAUNCH.md").read_text(encoding="utf-8")
# A string that goes on in the next line is one.
FILES = [file for room in ("launch", "runfile") for file in sorted((REPO / "recipe" / room).rglob("*.py"))]
CODE = "".join(
    re.sub(r'"\s*\n\s*f?"', "", file.read_text(encoding="utf-8"))
    for file in (*FILES, REPO / "recipe" / "command.py", REPO / "recipe" / "stopping.py")
)


def explained() -> list[str]:
    table = PAGE.partition("## What you see")[2].partition("\n## ")[0]
    rows = [line.split(" | ")[0] for line in table.splitlines() if line.startswith("| ") and "`" in line]
    return [message for row in rows for message in re.findall(r"`([^`]+)`", row)]


@pytest.mark.parametrize("message", [message for message in explained() if not message.startswith("(")])
def test_what_is_explained_is_said(message: str) -> None:
    # Names, numbers, reasons and a few words are filled in.
    pieces = re.split(r"\(.*?\)|\b[A-Z]+\b|[\d.]{2,}|\d|:|,|;|node manager|\bcode\b|\bended\b", message)
    for piece in filter(lambda piece: len(piece) > 3, map(str.strip, pieces)):
        assert piece in CODE


def test_most_is_explained() -> None:
    assert len(explained()) > 20
