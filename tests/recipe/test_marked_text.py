# SPDX-License-Identifier: Apache-2.0
"""The part of a page that a program writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from recipe.marked_text import with_part


def test_only_the_part_between_the_lines_is_replaced(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("a\n<1>\nold\n<2>\nb\n", encoding="utf-8")
    assert with_part(page, "<1>", "<2>", "new\nlines") == "a\n<1>\nnew\nlines\n<2>\nb\n"
    assert page.read_text(encoding="utf-8") == "a\n<1>\nold\n<2>\nb\n"


@pytest.mark.parametrize("text", ["", "<1>\n", "<2>\n", "<2>\n<1>\n", "<1>\n<1>\n<2>\n", "<1>\n<2>\n<2>\n"])
def test_lines_that_are_not_there_once_in_this_order(tmp_path: Path, text: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match="must have the line '<1>' once and, below it, the line '<2>' once"):
        with_part(page, "<1>", "<2>", "new")
