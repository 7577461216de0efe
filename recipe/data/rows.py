# SPDX-License-Identifier: Apache-2.0
"""Reads problems in the DeepScaleR schema: a JSON list of ``{"problem", "answer", "solution"}``.

What is done with each field:

=============  ==================================================================================================
``problem``    text; ``null``, empty or blank: the row is dropped and counted
``answer``     text (kept without outer whitespace), or a number or boolean (kept as its JSON spelling);
               ``null``, empty or blank: the row is dropped and counted. The text "None" is a text like any other.
``solution``   text, ``null`` or absent (both: empty text)
=============  ==================================================================================================

Everything else (a row that is no object, an absent ``problem`` or ``answer``, a list where a text belongs, text that
is no valid Unicode) is an error that names the record and the field: a file that is wrong in one place is usually
wrong in more, and a training run on half of it would not be noticed.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class DataError(Exception):
    """The input cannot be used; the message is one line: where, what was found, what was expected."""


@dataclass(frozen=True)
class Row:
    """One problem. ``index`` is its place in the source file, from 0."""

    index: int
    problem: str
    answer: str
    solution: str


@dataclass
class Dropped:
    """How many rows were left out, by reason."""

    empty_problem: int = 0
    empty_answer: int = 0
    duplicate_problem: int = 0

    @property
    def total(self) -> int:
        return self.empty_problem + self.empty_answer + self.duplicate_problem


def read_rows(path: Path) -> tuple[list[Row], Dropped]:
    """Usable rows of a file in file order, and the counts of those left out.

    Of several rows with the same problem text the first is kept, so that no problem can be in both splits.
    Raises ``DataError``.
    """
    records = _load(path)
    dropped = Dropped()
    seen: set[str] = set()
    rows = []
    for index, record in enumerate(records):
        where = f"{path}: record {index}"
        if not isinstance(record, dict):
            raise DataError(f"{where}: expected an object with 'problem' and 'answer', found {_name(record)}")
        problem = _text(record, "problem", where)
        answer = _answer(record, where)
        solution = _text(record, "solution", where) if "solution" in record else ""
        if not problem.strip():
            dropped.empty_problem += 1
        elif not answer:
            dropped.empty_answer += 1
        elif problem in seen:
            dropped.duplicate_problem += 1
        else:
            seen.add(problem)
            rows.append(Row(index, problem, answer, solution))
    return rows, dropped


def _load(path: Path) -> list[Any]:
    def no_constant(name: str) -> None:
        raise ValueError(f"{name} is no JSON value")

    try:
        data = json.loads(path.read_text(encoding="utf-8-sig"), parse_constant=no_constant)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not a JSON file in UTF-8: {error}") from error
    if not isinstance(data, list):
        raise DataError(f"{path}: expected a JSON list of records, found {_name(data)}")
    return data


def _text(record: dict[str, Any], field: str, where: str) -> str:
    if field not in record:
        raise DataError(f"{where}: field '{field}' is missing; the record has {_keys(record)}")
    value = record[field]
    if value is None:
        return ""
    if not isinstance(value, str):
        raise DataError(f"{where}: field '{field}' must be a text, found {_name(value)}")
    return _valid_unicode(value, field, where)


def _answer(record: dict[str, Any], where: str) -> str:
    value = record.get("answer")
    if isinstance(value, float) and not math.isfinite(value):
        raise DataError(f"{where}: field 'answer' is a number too large to read; write it as a text")
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    if isinstance(value, list | dict):
        raise DataError(f"{where}: field 'answer' must be a text or a number, found {_name(value)}; write it as a text")
    return _text(record, "answer", where).strip()


def _valid_unicode(text: str, field: str, where: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(
            f"{where}: field '{field}' has half a surrogate pair at character {error.start}; remove it"
        ) from error
    return text


def _keys(record: dict[str, Any]) -> str:
    return ", ".join(repr(key) for key in record) or "no fields"


def _name(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")
