# SPDX-License-Identifier: Apache-2.0
"""Usable problems of a file, each checked, none twice.

What is done with each field, wherever the format finds it:

=============  ==================================================================================================
problem        text; ``null``, empty or blank: the row is left out and counted
answer         text (kept without outer whitespace), a number or boolean (kept as its JSON spelling), or these in a
               list or an object; what is around the answer is taken off as ``truths`` says, and counted.
               ``null``, empty or blank, or none found in the solution: the row is left out and counted; so is one
               that no answer can match, or it is counted and kept. The text "None" is a text like any other.
solution       text, ``null`` or absent (both: empty text)
system         text, ``null`` or absent (both: empty text, and the template's system message stands)
=============  ==================================================================================================

Everything else (a row that is no object, an absent field, a list where a text belongs, text that is no valid Unicode)
is an error that names the record and the key: a file that is wrong in one place is usually wrong in more, and a
training run on half of it would not be noticed.

Problems that differ in white space alone are one problem.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recipe.data.formats import FORMATS, MISSING, OPTIONAL, Format, find
from recipe.data.records import DataError, column_names, read_records
from recipe.data.truths import DROP, Truths, accepted_answers

__all__ = ["DataError", "Dropped", "Row", "problem_key", "read_rows"]

DEEPSCALER = FORMATS["deepscaler"]
REQUIRED = ("prompt", "answer")
# How many places of left-out records are kept for the report, for each reason.
PLACES = 20


@dataclass(frozen=True, slots=True)
class Row:
    """One problem. ``index`` is its place in the source file, from 0; ``alternatives`` are further accepted answers;
    ``system`` is a system message of its own, or empty."""

    index: int
    problem: str
    answer: str
    solution: str
    alternatives: tuple[str, ...] = ()
    system: str = ""

    @property
    def truth(self) -> str | list[str]:
        """The ground truth: the answer, or all accepted ones."""
        return [self.answer, *self.alternatives] if self.alternatives else self.answer


@dataclass
class Dropped:
    """How many rows were left out, by reason, and where the first of them stand.

    ``duplicate_problem`` counts repeated problems whose answer is the same text as the first's,
    ``conflicting_answer`` those whose answer is another, ``unreadable`` those whose answer the reward cannot match.
    """

    empty_problem: int = 0
    empty_answer: int = 0
    duplicate_problem: int = 0
    conflicting_answer: int = 0
    unreadable: int = 0
    too_long: int = 0
    places: dict[str, list[int]] = field(default_factory=dict)

    REASONS = ("empty_problem", "empty_answer", "duplicate_problem", "conflicting_answer", "unreadable", "too_long")

    def add(self, reason: str, index: int) -> None:
        """Counts the record ``index`` under one of ``REASONS``."""
        setattr(self, reason, getattr(self, reason) + 1)
        places = self.places.setdefault(reason, [])
        if len(places) < PLACES:
            places.append(index)

    @property
    def counts(self) -> dict[str, int]:
        return {reason: getattr(self, reason) for reason in self.REASONS}

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    def __add__(self, other: Dropped) -> Dropped:
        """The counts of both added up; the places are those of the first."""
        counts = {reason: count + other.counts[reason] for reason, count in self.counts.items()}
        return Dropped(**counts, places=self.places)


def problem_key(problem: str) -> bytes:
    """Equal for problems that are the same text but for white space."""
    return hashlib.blake2b(" ".join(problem.split()).encode(), digest_size=16).digest()


def read_rows(
    path: Path,
    form: Format = DEEPSCALER,
    progress: Callable[[int], None] | None = None,
    truths: Truths | None = None,
) -> tuple[list[Row], Dropped]:
    """Usable rows of a file in file order, and the counts of those left out.

    Of several rows with the same problem the first is kept, so that no problem can be in both splits. ``progress`` is
    called with the number of records read so far. ``truths`` takes the counts of answers, and says what is done with
    those that cannot be matched; None: one made without arguments. Raises ``DataError``.
    """
    dropped = Dropped()
    truths = Truths() if truths is None else truths
    rows: list[Row] = []
    seen: dict[bytes, str | list[str]] = {}
    for row, wrappings in _rows(path, form):
        if progress is not None:
            progress(row.index + 1)
        if not row.problem.strip():
            dropped.add("empty_problem", row.index)
        elif not row.answer:
            dropped.add("empty_answer", row.index)
        elif (key := problem_key(row.problem)) in seen:
            dropped.add("duplicate_problem" if seen[key] == row.truth else "conflicting_answer", row.index)
        elif not truths.matched(row.truth, row.index) and truths.policy == DROP:
            dropped.add("unreadable", row.index)
        else:
            seen[key] = row.truth
            rows.append(row)
            truths.reduced.update(set(wrappings))
            truths.several += bool(row.alternatives)
    return rows, dropped


def _rows(path: Path, form: Format) -> Iterator[tuple[Row, list[str]]]:
    """Every record as a row, with what was taken off around its answer."""
    for index, record in enumerate(read_records(path, sorted(form.columns))):
        where = f"{path}: record {index}"
        if not isinstance(record, dict):
            needed = f"{form.paths['prompt']!r} and {form.paths['answer']!r}"
            raise DataError(f"{where}: expected an object with {needed}, found {_name(record)}")
        problem_field, answer_field = (find(record, form.paths[role]) for role in REQUIRED)
        if problem_field is MISSING or answer_field is MISSING:
            raise DataError(f"{where}: {_missing(record, form, column_names(path) or list(record))}")
        problem = _text(form.problem_of(problem_field), form.paths["prompt"], where)
        if query := _optional(record, form, "query", where).strip():
            problem = f"{problem}\n\n{query}" if problem.strip() else query
        if isinstance(answer_field, str):
            answer_field = form.answer_of(answer_field)
        answers, wrappings = accepted_answers(answer_field, f"{where}: field '{form.paths['answer']}'")
        solution = form.solution_of(_optional(record, form, "solution", where))
        answer, *alternatives = answers or [""]
        system = _optional(record, form, "system", where)
        yield Row(index, problem, answer, solution, tuple(alternatives), system if system.strip() else ""), wrappings


def _missing(record: dict[str, Any], form: Format, names: list[str]) -> str:
    """The message for missing fields: which, what the record has (``names``), and what was looked for."""
    first, *more = [repr(form.paths[role]) for role in REQUIRED if find(record, form.paths[role]) is MISSING]
    also = f", and so is {more[0]}" if more else ""
    has = ", ".join(map(repr, names)) or "no fields"
    looked = ", ".join(path for path in form.paths.values() if path)
    hint = f"--format {form.name} expects {form.rule}; --map-keys names other keys"
    return f"field {first} is missing{also}; the record has {has}, and {looked} were looked for ({hint})"


def _optional(record: dict[str, Any], form: Format, role: str, where: str) -> str:
    assert role in OPTIONAL
    path = form.paths.get(role)
    value = find(record, path) if path else MISSING
    return "" if value is MISSING else _text(value, str(path), where)


def _text(value: Any, path: str, where: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise DataError(f"{where}: field '{path}' must be a text, found {_name(value)}")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        problem = f"has half a surrogate pair at character {error.start}; remove it"
        raise DataError(f"{where}: field '{path}' {problem}") from error
    return value


def _name(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "a boolean", type(None): "null"}
    names |= {int: "a number", float: "a number"}
    return names.get(type(value), type(value).__name__)
