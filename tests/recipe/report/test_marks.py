# SPDX-License-Identifier: Apache-2.0
"""Marks come back as they were written, whatever else the file holds."""

from __future__ import annotations

from pathlib import Path

from recipe.report.marks import FILE, SETTING, WARNING, Mark, add_mark, read_marks


def test_marks_come_back_in_order_and_other_lines_are_left_out(tmp_path: Path) -> None:
    first, second = Mark(3, WARNING, "equal_rewards", "all rewards equal"), Mark(4, SETTING, "train.clip", "0.2 -> 0.3")
    add_mark(tmp_path, first)
    with open(tmp_path / FILE, "a", encoding="utf-8") as file:
        file.write('{"step": "4", "kind": "warning", "name": "x", "text": "y"}\n{"step": 4, "kind": "war\n')
    add_mark(tmp_path, second)
    assert read_marks(tmp_path) == [first, second]


def test_a_run_without_marks_has_none(tmp_path: Path) -> None:
    assert read_marks(tmp_path) == []
