# SPDX-License-Identifier: Apache-2.0
"""Streaming of every kind of file: the same records from each, and one clear line for a damaged one."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recipe.data import records
from recipe.data.records import DataError, read_records

SOME = [{"problem": "a\nb", "answer": 1, "x": {"y": [1, None]}}, {"problem": "ü…\u2028 \\", "answer": 2, "x": None}]


def kinds(path: Path, values: list[Any]) -> dict[str, Path]:
    """Files with the same records, under names that say nothing."""
    as_list = json.dumps(values, ensure_ascii=False).encode()
    as_lines = b"\n".join(json.dumps(value, ensure_ascii=False).encode() for value in values) + b"\n"
    contents = {
        "list": as_list,
        "indented": json.dumps(values, indent=3).encode(),
        "byte order mark": b"\xef\xbb\xbf" + as_list,
        "lines": as_lines,
        "lines, blank ones among them, none at the end": b"\n" + as_lines.replace(b"\n", b"\n \r\n").rstrip(),
        "list, gzip": gzip.compress(as_list),
        "lines, gzip": gzip.compress(as_lines),
    }
    files = {}
    for place, (kind, content) in enumerate(contents.items()):
        files[kind] = path / f"file{place}.txt"
        files[kind].write_bytes(content)
    files["parquet"] = path / "file.json"
    pq.write_table(pa.Table.from_pylist(values), files["parquet"])
    return files


def test_every_kind_of_file_gives_the_same_records(tmp_path: Path) -> None:
    for kind, file in kinds(tmp_path, SOME).items():
        assert list(read_records(file)) == SOME, kind


@pytest.mark.parametrize("chunk", [1, 2, 3, 7])
def test_records_are_whole_wherever_the_file_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(records, "CHUNK", chunk)
    values = [*SOME, {"deep": [[{"n": -1.5e-3, "t": True, "f": False, "u": "\\u1234\\"}]]}, {}] * 3
    file = tmp_path / "in.json"
    for text in (json.dumps(values), json.dumps(values, indent=1) + "\n\n"):
        file.write_text(text)
        assert list(read_records(file)) == values
    file.write_text("[1, 23, -4.5e6, 0.0, true, null, 7E-2, 678]")
    assert list(read_records(file)) == [1, 23, -4.5e6, 0.0, True, None, 0.07, 678]
    file.write_text("\n".join(map(json.dumps, values)))
    assert list(read_records(file)) == values


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab\\\"{}[],", max_size=3), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


# No deadline: how long an example takes is not judged here.
@settings(deadline=None)
@given(values=st.lists(json_values, max_size=5), indent=st.sampled_from([None, 0, 2]), chunk=st.integers(1, 40))
def test_a_list_reads_as_json_does(
    tmp_path_factory: pytest.TempPathFactory, values: list[Any], indent: int | None, chunk: int
) -> None:
    file = tmp_path_factory.getbasetemp() / "values.json"
    file.write_text(json.dumps(values, indent=indent, ensure_ascii=chunk % 2 == 0), encoding="utf-8")
    usual, records.CHUNK = records.CHUNK, chunk
    try:
        assert list(read_records(file)) == values
    finally:
        records.CHUNK = usual


@settings(deadline=None)
@given(values=st.lists(json_values, min_size=1, max_size=3), data=st.data())
def test_a_list_that_is_cut_off_is_never_taken_for_whole(
    tmp_path_factory: pytest.TempPathFactory, values: list[Any], data: st.DataObject
) -> None:
    text = json.dumps(values)
    file = tmp_path_factory.getbasetemp() / "cut.json"
    file.write_text(text[: data.draw(st.integers(0, len(text) - 1))], encoding="utf-8")
    with pytest.raises(DataError, match=r"cut\.json: "):
        list(read_records(file))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "expected a JSON list of records, or one JSON object per line; it is empty"),
        (b"  \n", "it is empty"),
        (b"problem,answer\n", "it starts with 'p'"),
        (b'[{"a": 1}, {"a": 2}', "the list is not closed: the file ends after 2 records"),
        (b'[{"a": 1},', "the list is not closed: the file ends after 1 records"),
        (b'[{"a": 1}, {"a": tru}]', "record 1: not valid JSON: Expecting value, found 'tru}]'"),
        (b'[{"a": 1}, {"a": 2},]', "record 2: not valid JSON: Expecting value, found ']'"),
        (b'[{"a": 1} {"a": 2}]', "after record 0: expected ',' or ']', found '{'"),
        (b'[{"a": 1}] [2]', "text after the end of the list: '[2]'"),
        (b'[{"a": 1}, {"a": "x', "record 1: not valid JSON: Unterminated string"),
        (b'[{"a": NaN}]', "record 0: not valid JSON: NaN is no JSON value"),
        (b'[{"a": 1}, {"b": 1, "b": 2}]', "record 1: not valid JSON: key 'b' occurs twice"),
        (b'[{"a": ' + b"1" * 5000 + b"}]", "record 0: not valid JSON: Exceeds the limit"),
        (b'{"a": 1}\n\n{"a": \n{"a": 3}', "record 1 (line 3): not one JSON object per line: Expecting value"),
        (b'{"a": 1} {"a": 2}\n', "record 0 (line 1): not one JSON object per line: Extra data"),
        (b'{\n"a": 1\n}\n', "record 0 (line 1): not one JSON object per line"),
        (b'[{"a": 1}, {"a": "\xff"}]', "near record 0: not a JSON file in UTF-8"),
        (gzip.compress(b'[{"a": 1}]', mtime=0)[:-9], "damaged gzip file: "),
        (b"\x1f\x8bnothing of the kind", "damaged gzip file: "),
        (b"PAR1 and no more", "damaged Parquet file: "),
    ],
)
def test_damage_is_one_line_that_names_the_place(tmp_path: Path, content: bytes, expected: str) -> None:
    file = tmp_path / "bad.json"
    file.write_bytes(content)
    with pytest.raises(DataError) as caught:
        list(read_records(file))
    assert expected in str(caught.value) and str(caught.value).startswith(f"{file}: ")
    assert "\n" not in str(caught.value)


def test_damage_far_from_the_end_is_found_without_reading_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "CHUNK", 100)
    reads = []
    decode = records.DECODER.raw_decode

    class Counting:
        def raw_decode(self, text: str, at: int) -> tuple[Any, int]:
            reads.append(len(text))
            return decode(text, at)

    monkeypatch.setattr(records, "DECODER", Counting())
    file = tmp_path / "bad.json"
    file.write_text('[{"a": oops}' + ', {"a": 1}' * 100_000 + "]")
    with pytest.raises(DataError, match="record 0: not valid JSON: Expecting value, found 'oops"):
        list(read_records(file))
    assert max(reads) == 100


def test_a_quote_that_is_never_closed_does_not_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "CHUNK", 1 << 12)
    monkeypatch.setattr(records, "LARGEST_RECORD", 1 << 16)
    for start in ('[{"a": "', '{"a": "'):
        file = tmp_path / "bad.json"
        file.write_text(start + "x" * (1 << 22))
        tracemalloc.start()
        with pytest.raises(DataError, match="record 0"):
            list(read_records(file))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 1 << 20


@pytest.mark.parametrize("kind", ["list", "lines", "list, gzip", "parquet"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, kind: str) -> None:
    values = [{"problem": f"{i} " + "x" * 1000, "answer": str(i)} for i in range(20_000)]
    file = kinds(tmp_path, values)[kind]
    stream = read_records(file)
    next(stream)
    tracemalloc.start()
    count = 1 + sum(1 for _ in stream)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 20_000
    assert peak < 8 << 20  # of 20 MB


def test_parquet_gives_the_wanted_columns_only(tmp_path: Path) -> None:
    file = kinds(tmp_path, SOME)["parquet"]
    assert list(read_records(file, ["answer", "absent"])) == [{"answer": 1}, {"answer": 2}]


@settings(deadline=None)
@given(data=st.data())
def test_damage_anywhere_in_any_kind_of_file_is_one_line_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp()
    files = kinds(path, [{"problem": f"p{i}", "answer": str(i)} for i in range(20)])
    content = bytearray(files[data.draw(st.sampled_from(sorted(files)))].read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    file = path / "damaged.json"
    file.write_bytes(content[: data.draw(st.integers(1, len(content)))])
    try:
        for _ in read_records(file):
            pass
    except DataError as error:
        assert "\n" not in str(error) and str(error).startswith(f"{file}: ")


def test_text_that_is_not_utf8_in_parquet_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "bad.parquet"
    pq.write_table(pa.Table.from_pylist([{"problem": "unmistakable"}]), file, compression="none")
    file.write_bytes(file.read_bytes().replace(b"unmistakable", b"unm\xbfstakable"))
    with pytest.raises(DataError, match=r"damaged Parquet file: 'utf-8' codec"):
        list(read_records(file))


def test_a_directory_or_nothing_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Is a directory"):
        list(read_records(tmp_path))
    with pytest.raises(DataError, match="No such file"):
        list(read_records(tmp_path / "absent.json"))
