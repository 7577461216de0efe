# SPDX-License-Identifier: Apache-2.0
"""The page of the checks."""

from __future__ import annotations

from recipe.checks import page
from recipe.checks.catalogue import every_check


def test_the_page_is_current() -> None:
    assert page.PAGE.read_text(encoding="utf-8") == page.text(), "run: python -m recipe.checks.page"


def test_every_check_has_a_row_in_the_order_of_ids_within_its_subject() -> None:
    rows = [line.split(" | ")[0].removeprefix("| ") for line in page.text().splitlines() if line.startswith("| ")]
    ids = [cell for cell in rows if cell[1:].isdigit()]
    assert sorted(ids) == [check.id for check in every_check()]
    for letter in {id[0] for id in ids}:
        of_subject = [id for id in ids if id[0] == letter]
        assert of_subject == sorted(of_subject)
        start = ids.index(of_subject[0])
        assert ids[start : start + len(of_subject)] == of_subject
