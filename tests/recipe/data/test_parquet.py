# SPDX-License-Identifier: Apache-2.0
"""JSON to Parquet: schema, split, determinism, what a failure leaves behind."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recipe.data.cli import main
from recipe.data.parquet import split_rows
from recipe.data.rows import Row
from recipe.data.templates import get_template


def problems(path: Path, count: int, name: str = "in.json", first: int = 0) -> Path:
    file = path / name
    records = [{"problem": f"p{i}", "answer": str(i), "solution": f"s{i}"} for i in range(first, first + count)]
    file.write_text(json.dumps(records), encoding="utf-8")
    return file


def convert(source: Path, out: Path, *more: str) -> int:
    return main(["--json_path", str(source), "--output_dir", str(out), *more])


def test_rows_have_the_schema_verl_reads(tmp_path: Path) -> None:
    assert convert(problems(tmp_path, 10), tmp_path / "out", "--data_source", "mine") == 0
    rows = pq.read_table(tmp_path / "out/train.parquet").to_pylist()
    assert len(rows) == 9
    row = next(r for r in rows if r["extra_info"]["index"] == 3 or r["extra_info"]["index"] == 4)
    place = row["extra_info"]["index"]
    assert row == {
        "data_source": "mine",
        "prompt": get_template("r1_zero").messages(f"p{place}"),
        "ability": "math",
        "reward_model": {"style": "rule", "ground_truth": str(place)},
        "extra_info": {"index": place, "split": "train", "answer": f"s{place}"},
    }
    assert pq.read_table(tmp_path / "out/test.parquet").to_pylist()[0]["extra_info"]["split"] == "test"


@given(count=st.integers(2, 200), ratio=st.floats(0.001, 0.999), seed=st.integers(0, 2**32))
def test_split_loses_and_repeats_nothing(count: int, ratio: float, seed: int) -> None:
    rows = [Row(i, f"p{i}", "1", "") for i in range(count)]
    train, test = split_rows(rows, ratio, seed)
    assert train and test
    assert sorted(row.index for row in train + test) == list(range(count))
    assert abs(len(train) - count * ratio) <= 1
    assert split_rows(rows, ratio, seed) == (train, test)


def test_split_is_shuffled_by_the_seed(tmp_path: Path) -> None:
    rows = [Row(i, f"p{i}", "1", "") for i in range(1000)]
    first, second = split_rows(rows, 0.9, 1)[1], split_rows(rows, 0.9, 2)[1]
    assert first != second
    # An ordered source must not end up in the test split by its tail: about a tenth of either half is expected.
    assert 20 < sum(row.index < 500 for row in first) < 80


def test_two_runs_write_the_same_bytes(tmp_path: Path) -> None:
    source = problems(tmp_path, 50)
    for name in ("a", "b"):
        assert convert(source, tmp_path / name, "--seed", "7") == 0
    for file in ("train.parquet", "test.parquet"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_own_test_file_is_taken_whole_and_must_be_disjoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, other = problems(tmp_path, 20), problems(tmp_path, 5, "other.json", first=100)
    assert convert(source, tmp_path / "out", "--test_json_path", str(other)) == 0
    assert pq.read_table(tmp_path / "out/train.parquet").num_rows == 20
    answers = pq.read_table(tmp_path / "out/test.parquet").column("reward_model").to_pylist()
    assert [a["ground_truth"] for a in answers] == ["100", "101", "102", "103", "104"]
    overlapping = problems(tmp_path, 5, "overlap.json", first=18)
    assert convert(source, tmp_path / "out2", "--test_json_path", str(overlapping)) == 2
    assert "2 problems are also in" in capsys.readouterr().err
    assert not (tmp_path / "out2").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--train_data_ratio", "1.5"], "train_data_ratio must be between 0 and 1"),
        (["--template", "none"], "unknown template 'none'"),
    ],
)
def test_bad_arguments_are_one_line_and_write_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], expected: str
) -> None:
    assert convert(problems(tmp_path, 10), tmp_path / "out", *arguments) == 2
    error = capsys.readouterr().err
    assert expected in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_bad_record_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "in.json"
    source.write_text('[{"problem": "a", "answer": "1"}, {"problem": "b"}]')
    assert convert(source, tmp_path / "out") == 2
    assert "record 1: field 'answer' is missing" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_failed_write_keeps_the_old_file_and_leaves_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    assert convert(problems(tmp_path, 10), out) == 0
    before = (out / "train.parquet").read_bytes()

    def full_disk(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(pq, "write_table", full_disk)
    assert convert(problems(tmp_path, 12), out) == 2
    assert (out / "train.parquet").read_bytes() == before
    assert sorted(path.name for path in out.iterdir()) == ["test.parquet", "train.parquet"]


def test_left_out_rows_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "in.json"
    records = [{"problem": f"p{i}", "answer": "1"} for i in range(4)] + [{"problem": "q", "answer": ""}]
    source.write_text(json.dumps(records))
    assert convert(source, tmp_path / "out") == 0
    assert "left out: 0 without a problem, 1 without an answer, 0 repeated problems" in capsys.readouterr().out
