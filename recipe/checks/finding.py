# SPDX-License-Identifier: Apache-2.0
"""What comes of a check: what it says is wrong, or why it says nothing, and the finding that is made of that."""

from __future__ import annotations

from dataclasses import dataclass

from recipe.text import printable

# Worst first.  not run: the check could not tell.
LEVELS = ("error", "warning", "not run")
# Of what was found, what is expected and what to do, each.
LONGEST_PART = 800


class CannotTell(Exception):
    """Raised by a check that lacks what it looks at; the text says what is missing."""


class NoMatter(Exception):
    """Raised by a check that has nothing to say about this kind of run."""


@dataclass(frozen=True)
class Complaint:
    """What a check says is wrong. `fix` replaces the declaration's; `level` is "error" or "warning"."""

    found: str
    expected: str
    fix: str | None = None
    level: str = "error"


def bad(found: str, expected: str, fix: str | None = None) -> Complaint:
    """What keeps the run from working."""
    return Complaint(found, expected, fix)


def doubtful(found: str, expected: str, fix: str | None = None) -> Complaint:
    """What lets the run work, and is hardly what was meant."""
    return Complaint(found, expected, fix, "warning")


@dataclass(frozen=True)
class CheckFinding:
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


def line_of(text: str) -> str:
    """The text as a part of a line: bounded, and with nothing in it that a terminal obeys or cannot show."""
    line = printable(" ".join(text.split()))
    return line if len(line) <= LONGEST_PART else line[:LONGEST_PART] + " ..."
