# SPDX-License-Identifier: Apache-2.0
"""JSON to Parquet: schema, split, determinism, what a failure leaves behind."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recipe.data import write
from recipe.data.cli import main
from recipe.data.parquet import split_rows
from recipe.data.rows import Row
from recipe.data.templates import get_template

REPO = Path(__file__).resolve().parents[3]


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
        "extra_info": {"index": place, "split": "train", "answer": f"s{place}", "problem": f"p{place}"},
    }
    assert pq.read_table(tmp_path / "out/test.parquet").to_pylist()[0]["extra_info"]["split"] == "test"


@settings(deadline=None)
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
    source, test_source = problems(tmp_path, 20), problems(tmp_path, 5, "other.json", first=100)
    assert convert(source, tmp_path / "out", "--test_json_path", str(test_source)) == 0
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
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    write_table, calls = pq.ParquetWriter.write_table, []

    def disk_full_at_the_test_split(*arguments: object) -> None:
        calls.append(arguments)
        if len(calls) == 2:
            raise OSError("No space left on device")
        write_table(*arguments)

    monkeypatch.setattr(pq.ParquetWriter, "write_table", disk_full_at_the_test_split)
    assert convert(problems(tmp_path, 12), out) == 2
    assert len(calls) == 2
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert sorted(before) == ["test.parquet", "train.parquet"]


def test_left_out_rows_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "in.json"
    records = [{"problem": f"p{i}", "answer": "1"} for i in range(4)] + [{"problem": "q", "answer": ""}]
    source.write_text(json.dumps([*records, {"problem": "p0", "answer": "2"}]))
    assert convert(source, tmp_path / "out") == 0
    printed = capsys.readouterr().out
    assert "records read: 6, left out: 2" in printed
    assert "1 without an answer (records 4)" in printed
    assert "1 repeated problems with another answer than the first (records 5)" in printed


def test_test_size_is_exact_and_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = problems(tmp_path, 20)
    assert convert(source, tmp_path / "out", "--test-size", "3") == 0
    assert pq.read_table(tmp_path / "out/test.parquet").num_rows == 3
    assert pq.read_table(tmp_path / "out/train.parquet").num_rows == 17
    assert convert(source, tmp_path / "out2", "--test-size", "20") == 2
    assert "test size must be from 1 to 19" in capsys.readouterr().err
    assert not (tmp_path / "out2").exists()


def test_equal_problems_are_never_on_both_sides(tmp_path: Path) -> None:
    source = tmp_path / "in.json"
    # Each problem four times, with other white space: without the check most would be on both sides.
    spelled = ("p {}", " p {}", "p  {}\n", "p\t{}")
    source.write_text(json.dumps([{"problem": s.format(i), "answer": "1"} for s in spelled for i in range(30)]))
    assert convert(source, tmp_path / "out", "--train_data_ratio", "0.5", "--template", "plain") == 0
    sides = [
        {" ".join(row["prompt"][0]["content"].split()) for row in pq.read_table(tmp_path / "out" / name).to_pylist()}
        for name in ("train.parquet", "test.parquet")
    ]
    assert len(sides[0]) + len(sides[1]) == 30 and not sides[0] & sides[1]


def test_dry_run_writes_nothing_and_says_what_it_would(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert convert(problems(tmp_path, 10), tmp_path / "out", "--dry-run") == 0
    assert not (tmp_path / "out").exists()
    assert "would be written: " in capsys.readouterr().out


@pytest.mark.parametrize(("limit", "value", "groups"), [("GROUP", 7, 7), ("GROUP_CHARACTERS", 30, 10)])
def test_row_groups_join_seamlessly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, value: int, groups: int
) -> None:
    assert convert(problems(tmp_path, 50), tmp_path / "one") == 0
    monkeypatch.setattr(write, limit, value)
    assert convert(problems(tmp_path, 50), tmp_path / "many") == 0
    assert pq.ParquetFile(tmp_path / "many/train.parquet").num_row_groups >= groups
    for name in ("train.parquet", "test.parquet"):
        tables = [pq.read_table(tmp_path / out / name) for out in ("one", "many")]
        for table in tables:
            table.validate(full=True)
        assert tables[0].equals(tables[1])


def test_a_second_conversion_into_a_directory_is_refused_while_one_writes_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with write._alone(out):
        assert convert(problems(tmp_path, 10), out) == 2
    assert "another conversion is writing there" in capsys.readouterr().err
    assert list(out.iterdir()) == []


# Runs the command and stops for ever where it is told to; argv: the point, then the command's own.
STUCK = """
import os, sys, time
import pyarrow.parquet as pq
from recipe.data import write
from recipe.data.cli import main
point = sys.argv.pop(1)
def stuck(*arguments):
    print("stuck", flush=True)
    time.sleep(600)
if point == "second file":
    first = pq.ParquetWriter.write_table
    def one_then_stuck(self, table):
        first(self, table)
        if "test" in table.column("extra_info").combine_chunks().field("split").to_pylist():
            stuck()
    pq.ParquetWriter.write_table = one_then_stuck
else:
    replace = os.replace
    def replace_then_stuck(a, b):
        replace(a, b)
        stuck()
    write.os.replace = replace_then_stuck
main()
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("point", ["second file", "between the renames"])
def test_a_killed_run_leaves_the_old_pair_or_a_part_of_the_new_one(
    tmp_path: Path, how: signal.Signals, point: str
) -> None:
    out = tmp_path / "out"
    assert convert(problems(tmp_path, 10), out) == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    source = problems(tmp_path, 30, "more.json")
    process = subprocess.Popen(
        [sys.executable, "-c", STUCK, point, "--json_path", str(source), "--output_dir", str(out)],
        stdout=subprocess.PIPE, text=True, cwd=REPO,
    )  # fmt: skip
    assert process.stdout is not None and process.stdout.readline() == "stuck\n"
    process.send_signal(how)
    process.communicate(timeout=60)
    left = {path.name: path.read_bytes() for path in out.glob("*.parquet")}
    hidden = [path.name for path in out.glob(".*")]
    if point == "second file":
        assert left == before
    else:
        assert list(left) == ["train.parquet"]
        assert pq.read_table(out / "train.parquet").num_rows == 27
    assert bool(hidden) == (how == signal.SIGKILL)
    # The next one clears away what the killed one could not, and is as if nothing had happened.
    assert convert(source, out) == 0
    assert convert(source, tmp_path / "fresh") == 0
    for path in (tmp_path / "fresh").iterdir():
        assert path.read_bytes() == (out / path.name).read_bytes()
    assert sorted(path.name for path in out.iterdir()) == ["test.parquet", "train.parquet"]
