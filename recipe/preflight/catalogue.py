# SPDX-License-Identifier: Apache-2.0
"""What a check is: one declaration, one function over the facts, and the findings it yields.

    @check("L004", "expert parallel divides the dies of a stage", needs="static",
           why="what goes wrong otherwise", fix="what to type")
    def _expert_parallel(facts: Facts) -> Iterator[Said]:
        if ...:
            yield bad(found="...", expected="...")

A check yields what is wrong and nothing when all is well. One that cannot tell raises `CannotTell`, which is a finding
of its own; one that this run has no use for raises `NoMatter`, which is not. Whatever else one raises is a fault of its
own: a finding that says what to report, and that stands in the way of nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from recipe.preflight.crash import account, asks_to_stop
from recipe.text import printable

if TYPE_CHECKING:
    from recipe.preflight.facts import Facts

# What a check looks at.  static: the run file alone.  files: what the run reads, where it lies on this machine.
# node: this machine as one of the run's.  cluster: the Ray that runs.
NEEDS = ("static", "files", "node", "cluster")
# Worst first.  not run: the check could not tell.
LEVELS = ("error", "warning", "not run")
# Of what was found, what is expected and what to do, each.
LONGEST_PART = 800
_ID = re.compile(r"[A-Z][0-9]{3}")


class CannotTell(Exception):
    """Raised by a check that lacks what it looks at; the text says what is missing."""


class NoMatter(Exception):
    """Raised by a check that has nothing to say about this kind of run."""


@dataclass(frozen=True)
class Said:
    """What a check says is wrong. `fix` replaces the declaration's; `level` is "error" or "warning"."""

    found: str
    expected: str
    fix: str | None = None
    level: str = "error"


def bad(found: str, expected: str, fix: str | None = None) -> Said:
    """What keeps the run from working."""
    return Said(found, expected, fix)


def doubtful(found: str, expected: str, fix: str | None = None) -> Said:
    """What lets the run work, and is hardly what was meant."""
    return Said(found, expected, fix, "warning")


@dataclass(frozen=True)
class Finding:
    """One thing a check has to say; `level` is one of LEVELS."""

    id: str
    title: str
    level: str
    found: str
    expected: str
    fix: str

    @property
    def line(self) -> str:
        """The finding as one line."""
        if self.level == "not run":
            return f"{self.id} not run: {self.found}"
        return f"{self.id} {self.level}: {self.found}; expected {self.expected}; {self.fix}"


@dataclass(frozen=True)
class Check:
    """One declared check. `why` says what happens otherwise, `fix` what to do about it."""

    id: str
    title: str
    needs: str
    why: str
    fix: str
    function: Callable[[Any], Iterator[Said] | None]

    def findings(self, facts: Facts) -> list[Finding] | None:
        """What it finds; None where it does not apply to this run. Raises what ends the command, and nothing else."""
        found: list[Finding] = []
        try:
            for one in self.function(facts) or ():
                found.append(self._finding(one))
        except NoMatter:
            return found or None
        except CannotTell as reason:
            found.append(self._untold(str(reason)))
        except ModuleNotFoundError as error:
            found.append(self._untold(f"the package {error.name} is not installed"))
        except OSError as error:  # a disk that fails, a directory that may not be read, a name that is too long
            what = f"{error.filename or 'a file'} cannot be looked at ({error.strerror or error})"
            found.append(self._untold(what))
        except BaseException as error:  # extensions in other languages raise their panics past Exception
            if asks_to_stop(error):
                raise
            found.append(self._untold(account(error)))
        return found

    def _finding(self, one: Said) -> Finding:
        return Finding(
            self.id, self.title, one.level, line_of(one.found), line_of(one.expected), line_of(one.fix or self.fix)
        )

    def _untold(self, reason: str) -> Finding:
        return Finding(self.id, self.title, "not run", line_of(reason), "", "")


def line_of(text: str) -> str:
    """The text as a part of a line: bounded, and with nothing in it that a terminal obeys or cannot show."""
    line = printable(" ".join(text.split()))
    return line if len(line) <= LONGEST_PART else line[:LONGEST_PART] + " ..."


class Catalogue:
    """Checks by id; a second declaration of an id, or a badly formed one, is refused at import."""

    def __init__(self) -> None:
        self._checks: dict[str, Check] = {}

    def check(
        self, id: str, title: str, *, needs: str, why: str, fix: str
    ) -> Callable[[Callable[[Any], Iterator[Said] | None]], Callable[[Any], Iterator[Said] | None]]:
        """Declare the decorated function as a check."""
        if not _ID.fullmatch(id) or needs not in NEEDS or id in self._checks:
            raise ValueError(f"check {id!r} ({needs}): expected a new id such as L001, and one of {', '.join(NEEDS)}")

        def declare(function: Callable[[Any], Iterator[Said] | None]) -> Callable[[Any], Iterator[Said] | None]:
            self._checks[id] = Check(id, title, needs, why, fix, function)
            return function

        return declare

    def __iter__(self) -> Iterator[Check]:
        return iter(sorted(self._checks.values(), key=lambda one: one.id))

    def __len__(self) -> int:
        return len(self._checks)

    def __getitem__(self, id: str) -> Check:
        return self._checks[id]


CATALOGUE = Catalogue()
check = CATALOGUE.check
