# SPDX-License-Identifier: Apache-2.0
"""Problem, answer and solution of each known schema, and of one that is mapped by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recipe.data.formats import FORMATS, get_format, last_box, parse_map_keys
from recipe.data.rows import DataError, read_rows

INSTRUCTED = 'Solve it. The last line is Answer: $Answer.\n\nWhat is\n\n$1+1$?\n\nMind the line with "Answer:".'
RECORDS: dict[str, list[tuple[dict[str, Any], tuple[str, str, str] | None]]] = {
    "deepscaler": [({"problem": "p", "answer": "1", "solution": "s"}, ("p", "1", "s"))],
    "gsm8k": [
        ({"question": "q", "answer": "5 #### no\nso 1,000\n#### 1,234"}, ("q", "1234", "5 #### no\nso 1,000")),
        ({"question": "r", "answer": "no mark"}, None),
    ],
    "math_lighteval": [
        ({"problem": "p", "level": "Level 1", "solution": "\\boxed{1}, no: $\\boxed{\\frac{1}{2}}$."},
         ("p", "\\frac{1}{2}", "\\boxed{1}, no: $\\boxed{\\frac{1}{2}}$.")),
        ({"problem": "q", "solution": "none"}, None),
    ],
    "dapo17k": [
        ({"prompt": [{"role": "user", "content": INSTRUCTED}], "reward_model": {"ground_truth": "2", "style": "x"}},
         ("What is\n\n$1+1$?", "2", "")),
        ({"prompt": "bare\n\ntext\n\nhere", "reward_model": {"ground_truth": 3}}, ("bare\n\ntext\n\nhere", "3", "")),
        ({"prompt": "Answer: what?\n\nx", "reward_model": {"ground_truth": "4"}}, ("Answer: what?\n\nx", "4", "")),
    ],
    "alpaca": [
        ({"instruction": "Add", "input": "1 and 2", "output": "3"}, ("Add\n\n1 and 2", "3", "")),
        ({"instruction": "Say 1", "input": "", "output": "1"}, ("Say 1", "1", "")),
        ({"instruction": "Say 2", "output": "2"}, ("Say 2", "2", "")),
    ],
}  # fmt: skip


def read(path: Path, form: str, records: list[dict[str, Any]], keys: dict[str, str] | None = None) -> list[Any]:
    file = path / "in.json"
    file.write_text(json.dumps(records), encoding="utf-8")
    rows, _ = read_rows(file, get_format(form, keys))
    return [(row.problem, row.answer, row.solution) for row in rows]


def test_every_format_is_tried() -> None:
    assert set(RECORDS) == set(FORMATS)


@pytest.mark.parametrize("form", FORMATS)
def test_format(tmp_path: Path, form: str) -> None:
    records = [record for record, _ in RECORDS[form]]
    assert read(tmp_path, form, records) == [row for _, row in RECORDS[form] if row is not None]


def test_format_from_parquet_with_nested_columns(tmp_path: Path) -> None:
    file = tmp_path / "dapo.parquet"
    pq.write_table(pa.Table.from_pylist([RECORDS["dapo17k"][0][0] | {"unused": "x"}]), file)
    rows, _ = read_rows(file, get_format("dapo17k"))
    assert [(row.problem, row.answer) for row in rows] == [("What is\n\n$1+1$?", "2")]


@pytest.mark.parametrize(
    ("text", "box"),
    [
        ("\\boxed{a{b}c} and \\boxed{d}", "d"),
        ("\\boxed{\\{1, 2\\}}", "\\{1, 2\\}"),
        ("\\boxed{\\left\\{x \\right.}", "\\left\\{x \\right."),
        ("\\fbox{ 3 }", "3"),
        ("$\\boxed 5$ done", "5"),
        ("\\boxed{open", ""),
        ("\\boxedit", ""),
        ("", ""),
        ("\\boxed{" * 20_000, ""),
    ],
)
def test_last_box(text: str, box: str) -> None:
    assert last_box(text) == box


def test_map_keys_names_other_and_nested_keys(tmp_path: Path) -> None:
    keys = parse_map_keys('{"prompt": "chat.1.content", "response": "meta.label", "solution": ""}')
    record = {"chat": [{"content": "s"}, {"content": "q"}], "meta": {"label": 7}, "solution": "unwanted"}
    assert read(tmp_path, "deepscaler", [record], keys) == [("q", "7", "")]
    assert read(tmp_path, "deepscaler", [{"a.b": "q", "answer": "1"}], {"prompt": "a.b"}) == [("q", "1", "")]
    # The rule of the format still holds for the key that it is pointed at.
    assert read(tmp_path, "gsm8k", [{"q": "q", "a": "x #### 4"}], {"prompt": "q", "answer": "a"}) == [("q", "4", "")]


def test_a_system_message_of_the_records(tmp_path: Path) -> None:
    """Absent, null and blank ones are none; so are all of them where the mapping's key is empty."""
    file = tmp_path / "in.json"
    said = [{"system": "Be brief."}, {"system": None}, {}, {"system": " "}]
    file.write_text(json.dumps([{"problem": str(n), "answer": "1"} | own for n, own in enumerate(said)]))
    for key, expected in (("system", ["Be brief.", "", "", ""]), ("", [""] * 4)):
        rows, _ = read_rows(file, get_format("deepscaler", parse_map_keys(json.dumps({"system": key}))))
        assert [row.system for row in rows] == expected
    file.write_text(json.dumps([{"problem": "p", "answer": "1", "system": 3}]))
    with pytest.raises(DataError, match="record 0: field 'system' must be a text, found a number"):
        read_rows(file, get_format("deepscaler", {"system": "system"}))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{", "not valid JSON"),
        ("[]", "expected a JSON object of prompt, query, answer, solution, system and the key of each; found []"),
        ('{"promt": "q"}', "unknown field 'promt'; expected a JSON object of prompt, query, answer, solution"),
        ('{"prompt": 3}', "'prompt' must be the name of a key, found 3"),
        ('{"answer": ""}', "'answer' must be the name of a key"),
        ('{"answer": "a", "response": "b"}', "'response' and another name stand for the same field, 'answer'"),
    ],
)
def test_bad_map_keys(text: str, expected: str) -> None:
    with pytest.raises(DataError) as caught:
        parse_map_keys(text)
    assert expected in str(caught.value)


def test_wrong_format_says_what_it_expects_and_what_is_there(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read(tmp_path, "gsm8k", [{"problem": "p", "answer": "1"}])
    message = str(caught.value)
    assert "record 0: field 'question' is missing; the record has 'problem', 'answer'" in message
    assert "--format gsm8k expects question, answer" in message and "--map-keys" in message
    with pytest.raises(DataError, match="unknown format 'gsm'; known are deepscaler, gsm8k, math_lighteval"):
        get_format("gsm")
    with pytest.raises(DataError, match=r"field 'reward_model\.ground_truth' is missing"):
        read(tmp_path, "dapo17k", [{"prompt": "p", "reward_model": None}])


def test_solution_is_text_that_is_taken_from_where_the_answer_is(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="field 'solution' must be a text, found a number"):
        read(tmp_path, "math_lighteval", [{"problem": "p", "solution": 3}])
