# SPDX-License-Identifier: Apache-2.0
"""Reading of DeepScaleR-schema JSON: what is kept, what is left out and counted, what is refused and how."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from recipe.data.rows import DataError, read_rows


def write(path: Path, records: object) -> Path:
    file = path / "problems.json"
    file.write_text(json.dumps(records), encoding="utf-8")
    return file


def test_rows_keep_file_order_and_place(tmp_path: Path) -> None:
    file = write(tmp_path, [{"problem": "a", "answer": " 1 ", "solution": "s"}, {"problem": "b", "answer": "x"}])
    rows, dropped = read_rows(file)
    assert [(r.index, r.problem, r.answer, r.solution) for r in rows] == [(0, "a", "1", "s"), (1, "b", "x", "")]
    assert dropped.total == 0


@pytest.mark.parametrize(
    ("answer", "text"), [(12, "12"), (0.5, "0.5"), (True, "true"), (-3, "-3"), ("None", "None"), (0, "0")]
)
def test_answers_of_any_scalar_type_become_text(tmp_path: Path, answer: object, text: str) -> None:
    rows, _ = read_rows(write(tmp_path, [{"problem": "a", "answer": answer}]))
    assert rows[0].answer == text


def test_rows_without_problem_or_answer_are_counted_and_left_out(tmp_path: Path) -> None:
    records = [
        {"problem": "a", "answer": "1"},
        {"problem": " ", "answer": "1"},
        {"problem": None, "answer": "1"},
        {"problem": "b", "answer": ""},
        {"problem": "c", "answer": None},
        {"problem": "d", "answer": " \n"},
        {"problem": " a\n", "answer": "1"},
        {"problem": "a", "answer": "2"},
    ]
    rows, dropped = read_rows(write(tmp_path, records))
    assert [row.problem for row in rows] == ["a"]
    assert dropped.counts == {
        "empty_problem": 2, "empty_answer": 3, "duplicate_problem": 1, "conflicting_answer": 1, "unreadable": 0,
        "too_long": 0,
    }  # fmt: skip
    assert dropped.places == {
        "empty_problem": [1, 2], "empty_answer": [3, 4, 5], "duplicate_problem": [6], "conflicting_answer": [7],
    }  # fmt: skip
    assert dropped.total == 7


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ([], "record 1: expected an object with 'problem' and 'answer', found a list"),
        ({"question": "a", "answer": "1"}, "record 1: field 'problem' is missing; the record has 'question', 'answer'"),
        ({"problem": "a"}, "record 1: field 'answer' is missing"),
        ({"problem": 3, "answer": "1"}, "record 1: field 'problem' must be a text, found a number"),
        ({}, "record 1: field 'problem' is missing, and so is 'answer'; the record has no fields, and problem, "),
        ({"problem": "a", "answer": ["1", [2, 3]]}, "record 1: field 'answer' must be a text, a number, or a list of"),
        ({"problem": "a", "answer": {"x": 1}}, "record 1: field 'answer' is an object without one of answer, final_"),
        ({"problem": "a", "answer": "1", "solution": {}}, "record 1: field 'solution' must be a text, found an object"),
        ({"problem": "a\ud800", "answer": "1"}, "record 1: field 'problem' has half a surrogate pair at character 1"),
    ],
)
def test_bad_record_is_named_in_one_line(tmp_path: Path, record: object, expected: str) -> None:
    with pytest.raises(DataError) as caught:
        read_rows(write(tmp_path, [{"problem": "ok", "answer": "1"}, record]))
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        b"{}",
        b"[1",
        b"\xff\xfe",
        b"",
        b'[{"problem": "a", "answer": NaN}]',
        b'[{"problem": "a", "answer": 1e999}]',
        b'[{"problem": "a", "problem": "b", "answer": 1}]',
    ],
)
def test_bad_file_is_one_clear_error(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "bad.json"
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"bad\.json: "):
        read_rows(file)


def test_missing_file_and_deep_nesting_are_data_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file"):
        read_rows(tmp_path / "absent.json")
    deep = tmp_path / "deep.json"
    deep.write_text("[" * 200_000)
    with pytest.raises(DataError):
        read_rows(deep)
