# SPDX-License-Identifier: Apache-2.0
"""What a check may be declared as, and what a report says of every outcome."""

from __future__ import annotations

import pytest

from recipe.checks.declaration import Catalogue
from recipe.checks.finding import CannotTell, NoMatter, bad, doubtful
from recipe.checks.report import examine


def _catalogue() -> Catalogue:
    catalogue = Catalogue()

    def declare(id: str, function: object) -> None:
        catalogue.check(id, f"title of {id}", needs="static", why="because", fix="type this")(function)  # type: ignore[arg-type]

    def absent(facts: object) -> None:
        raise CannotTell("no file")

    def no_matter(facts: object) -> None:
        raise NoMatter

    declare("L001", lambda facts: iter([bad("two\nlines", "one")]))
    declare("L002", lambda facts: iter([doubtful("x", "y", "type that")]))
    declare("L003", absent)
    declare("L004", no_matter)
    declare("L005", lambda facts: None)
    return catalogue


def test_what_a_report_says_of_every_outcome() -> None:
    report = examine(_catalogue(), None)
    assert report.lines() == [
        "L001 error: two lines; expected one; type this",
        "L002 warning: x; expected y; type that",
        "not run (L003): no file",
        "1 checks passed, 1 failed, 1 warn, 1 could not be run here, 1 do not matter to this run",
    ]
    assert (report.exit_code, report.passed, report.without_matter) == (2, ("L005",), ("L004",))
    assert [finding["level"] for finding in report.as_json()["findings"]] == ["error", "warning", "not run"]


def test_warnings_alone_do_not_stop_a_run() -> None:
    report = examine([check for check in _catalogue() if check.id != "L001"], None)
    assert report.ok and report.exit_code == 0


@pytest.mark.parametrize(
    ("id", "needs"), [("L001", "static"), ("L1", "static"), ("L006", "luck"), ("A001", "static")],
    ids=["twice", "too short", "looks at nothing known", "of no subject"],
)  # fmt: skip
def test_an_id_given_twice_or_badly_formed_is_refused(id: str, needs: str) -> None:
    with pytest.raises(ValueError, match="expected a new id"):
        _catalogue().check(id, "t", needs=needs, why="w", fix="f")
