# SPDX-License-Identifier: Apache-2.0
"""Whatever a Parquet file holds, its faults are lines of D002, and nothing that reads it breaks."""

from __future__ import annotations

import base64
import datetime
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as pe
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from recipe.checks.catalogue import every_check
from recipe.checks.crash import REQUEST
from recipe.checks.facts.problems import parquet_faults, read_parquet

REPO = Path(__file__).resolve().parents[4]
MESSAGE = {"role": "user", "content": "1 + 1"}
ROW: dict[str, Any] = {
    "prompt": [MESSAGE],
    "reward_model": {"style": "rule", "ground_truth": "2"},
    "data_source": "sums",
    "extra_info": {"index": 0},
}
MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
TRUTH = pa.struct([("ground_truth", pa.string())])
# Those that start the tokenizer in a process of its own.
SLOW = {"D008", "D009"}


def table(**columns: Any) -> pa.Table:
    """One right row with other columns, each given as its value or as an array."""
    arrays = {name: pa.array([value]) for name, value in ROW.items()}
    for name, value in columns.items():
        arrays[name] = value if isinstance(value, pa.Array) else pa.array([value])
    return pa.table(arrays)


def told(world: Any, rows: pa.Table) -> dict[str, list[str]]:
    """Lines of every quick check of the data, once `rows` are what is learned from."""
    pq.write_table(rows, world.config.data.train_path)
    return lines(world)


def lines(world: Any, skipped: set[str] = SLOW) -> dict[str, list[str]]:
    facts, found = world.facts, {}
    for check in every_check():
        if check.id[0] == "D" and check.id not in skipped:
            found[check.id] = [finding.line for finding in check.findings(facts) or ()]
            assert REQUEST not in " ".join(found[check.id]), found[check.id]
    return found


# What is written in the place of a right row's column, and what D002 says of it.
ODD = [
    ({"prompt": "1 + 1"}, "column prompt is string, not a list of messages"),
    ({"prompt": json.dumps([MESSAGE])}, "column prompt is string, not a list of messages"),
    ({"prompt": ["1 + 1", "2"]}, "column prompt is list<element: string>, not a list"),
    ({"prompt": None}, "column prompt is null, not a list"),
    ({"prompt": MESSAGE}, "column prompt is struct<"),
    ({"prompt": [{"role": "user"}]}, "column prompt is list<element: struct<role: string>>, not"),
    ({"prompt": [{"role": "user", "content": ["1 + 1"]}]}, "column prompt is list<element: struct<"),
    ({"prompt": [{"role": 1, "content": "1 + 1"}]}, "column prompt is list<element: struct<"),
    ({"prompt": [[MESSAGE]]}, "column prompt is list<element: list<"),
    ({"prompt": b"1 + 1"}, "column prompt is binary"),
    ({"prompt": pa.array([None], MESSAGES)}, "1 of 1 rows have a null, or no message at all, in the prompt"),
    ({"prompt": pa.array([[]], MESSAGES)}, "the first is row 0"),
    ({"prompt": pa.array([[None]], MESSAGES)}, "the first is row 0"),
    ({"prompt": pa.array([[{"role": "user", "content": None}]], MESSAGES)}, "the first is row 0"),
    ({"prompt": pa.array([[{"role": None, "content": "1"}]], MESSAGES)}, "the first is row 0"),
    ({"reward_model": "2"}, "column reward_model is string, not a struct"),
    ({"reward_model": json.dumps({"ground_truth": "2"})}, "column reward_model is string, not a struct"),
    ({"reward_model": None}, "column reward_model is null"),
    ({"reward_model": {"style": "rule"}}, "column reward_model is struct<style: string>, not a struct with"),
    ({"reward_model": {"ground_truth": {"value": "2"}}}, "column reward_model is struct<ground_truth: struct<"),
    ({"reward_model": {"ground_truth": None}}, "column reward_model is struct<ground_truth: null>"),
    ({"reward_model": {"ground_truth": datetime.date(2000, 1, 1)}}, "ground_truth: date32[day]>"),
    ({"reward_model": {"ground_truth": b"2"}}, "ground_truth: binary>"),
    ({"data_source": 1}, "column data_source is int64, not text"),
    ({"data_source": ["sums"]}, "column data_source is list<element: string>, not text"),
    ({"extra_info": "{}"}, "column extra_info is string, not a struct"),
]  # fmt: skip


# Not by an array itself: its address differs between the processes that have to agree on a test's name.
@pytest.mark.parametrize(("columns", "said"), ODD, ids=lambda one: one if isinstance(one, str) else "".join(one))
def test_a_column_of_another_type_is_told_by_d002_and_by_it_alone(files: Any, columns: Any, said: str) -> None:
    found = told(files, table(**columns))
    assert any(said in line for line in found["D002"]), found
    assert all(line.startswith("D002 error: [data] train_path = ") for line in found["D002"])
    assert not [line for id, told_ in found.items() for line in told_ if id != "D002" and " error: " in line]
    for id in ("D003", "D005", "D011"):
        assert found[id][0].startswith(f"{id} not run: the problems cannot be read (D002")


def test_one_long_type_does_not_fill_the_line(files: Any) -> None:
    wide = {f"member_{n}": n for n in range(200)}
    (line,) = told(files, table(prompt=wide))["D002"]
    assert len(line) < 500 and "..." in line


@pytest.mark.parametrize(
    "columns",
    [
        {"prompt": pa.array([[MESSAGE]], pa.large_list(MESSAGES.value_type))},
        {"prompt": pa.array([[MESSAGE]], pa.list_(MESSAGES.value_type, 1))},
        {"data_source": pa.array(["sums"], pa.large_string())},
        {"data_source": pa.array(["sums"]).dictionary_encode()},
        {"reward_model": {"ground_truth": 2}},
        {"reward_model": {"ground_truth": 2.5}},
        {"reward_model": {"ground_truth": ["2", "4/2"]}},
        {"extra_info": pa.nulls(1)},
        {"more": pa.array([b"of another recipe's"])},
    ],
    ids=lambda columns: ", ".join(f"{name} {getattr(values, 'type', values)}" for name, values in columns.items())[:60],
)
def test_other_types_of_the_same_thing_are_right(files: Any, columns: Any) -> None:
    found = told(files, table(**columns))
    assert found["D002"] == found["D011"] == []
    assert read_parquet(Path(files.config.data.train_path)).prompts == [[MESSAGE]]


def test_an_extra_info_that_is_not_there_is_right(files: Any) -> None:
    assert told(files, table().drop_columns(["extra_info"]))["D002"] == []


def test_a_truth_that_is_not_there_is_told_by_d011(files: Any) -> None:
    found = told(files, table(reward_model=pa.array([None], TRUTH)))
    assert found["D002"] == [] and "1 of 1 ground truths are empty" in found["D011"][0]


def test_a_column_that_is_there_twice_is_told(files: Any) -> None:
    rows = table()
    found = told(files, rows.append_column("prompt", rows["prompt"]))
    assert "2 columns are called prompt" in found["D002"][0]


def test_no_rows_are_told_by_d003_for_both_files(files: Any) -> None:
    empty = table().slice(0, 0)
    pq.write_table(empty, files.config.data.validation_path)
    assert "no problems to validate on" in told(files, table())["D003"][-1]
    found = told(files, empty)
    assert "0 problems to learn from" in found["D003"][0]
    assert found["D005"] == ["D005 not run: there are no problems (D003)"]
    assert lines(files, set())["D008"] == ["D008 not run: there are no problems (D003)"]


class Keys(pe.KmsClient):
    """Keeps the keys where they are."""

    def __init__(self, _: Any) -> None:
        super().__init__()

    def wrap_key(self, key: bytes, _: str) -> str:
        return base64.b64encode(key).decode()

    def unwrap_key(self, key: str, _: str) -> bytes:
        return base64.b64decode(key)


def encrypted(file: Path) -> None:
    factory = pe.CryptoFactory(Keys)
    settings_ = pe.EncryptionConfiguration(footer_key="foot", column_keys={"one": ["data_source"]})
    properties = factory.file_encryption_properties(pe.KmsConnectionConfig(), settings_)
    with pq.ParquetWriter(file, table().schema, encryption_properties=properties) as writer:
        writer.write_table(table())


def _cut(file: Path, keep: float) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * keep)])


def _holed(file: Path) -> None:
    """Zeros where the first column's pages were: the footer is whole."""
    content = file.read_bytes()
    file.write_bytes(content[:4] + bytes(len(content) // 4) + content[4 + len(content) // 4 :])


def _directory(file: Path) -> None:
    file.unlink()
    file.mkdir()


@pytest.mark.parametrize(
    ("spoil", "id", "said"),
    [
        (lambda file: file.write_bytes(b""), "D002", "no Parquet file that can be read"),
        (lambda file: file.write_text("prompt,answer\n1,2\n"), "D002", "no Parquet file that can be read"),
        (lambda file: _cut(file, 0.5), "D002", "no Parquet file that can be read"),
        (lambda file: _cut(file, 0.999), "D002", "no Parquet file that can be read"),
        (_holed, "D002", "whose rows cannot be read"),
        (encrypted, "D002", "no Parquet file that can be read"),
        (_directory, "D001", "is not a file"),
    ],
    ids=["empty", "csv", "half", "nearly whole", "holed", "encrypted", "directory"],
)
def test_a_file_that_is_damaged_is_told(files: Any, spoil: Any, id: str, said: str) -> None:
    spoil(Path(files.config.data.train_path))
    found = lines(files, set())
    assert said in found[id][0], found
    assert found["D003"][0].startswith("D003 not run")


@pytest.mark.parametrize("command", ["preflight", "node"])
def test_the_commands_say_it_and_have_no_traceback(files: Any, tmp_path: Path, command: str) -> None:
    pq.write_table(table(prompt="1 + 1"), files.config.data.train_path)
    text = (REPO / "configs" / "sim.toml").read_text(encoding="utf-8")
    data, model = files.config.data, files.config.model
    for old, new in (
        ('kind = "tiny"', f'kind = "path"\npath = "{model.path}"\ncheckpoint = "{model.checkpoint}"'),
        (
            'kind = "arithmetic"',
            f'kind = "parquet"\ntrain_path = "{data.train_path}"\nvalidation_path = "{data.validation_path}"',
        ),
    ):
        assert old in text
        text = text.replace(old, new)
    (tmp_path / "run.toml").write_text(text, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "recipe", command, str(tmp_path / "run.toml")], cwd=REPO, capture_output=True, text=True,
        env={**os.environ, "RECIPE_RUNS": str(tmp_path / "runs")}, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 2 and "Traceback" not in done.stdout + done.stderr
    assert "D002 error: [data] train_path = " in done.stdout and "column prompt is string" in done.stdout
    assert not (tmp_path / "runs").exists() or command == "preflight"


SCALARS = st.one_of(
    st.none(), st.text(max_size=4), st.integers(-(2**40), 2**40), st.floats(), st.booleans(), st.binary(max_size=3),
    st.datetimes(), st.decimals(allow_nan=False, allow_infinity=False, places=2, max_value=10**6, min_value=0),
)  # fmt: skip
NAMES = st.sampled_from(["role", "content", "ground_truth", "style", "index", ""])
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(NAMES, inner, max_size=3)),
    max_leaves=6,
)


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    """Rows with some columns right, some odd, some away, some null."""
    count = draw(st.integers(0, 3))
    columns: list[tuple[str, pa.Array]] = []
    for name, right in ROW.items():
        how = draw(st.sampled_from(["right", "right", "odd", "nulls", "away", "twice"]))
        values = {
            "odd": st.lists(VALUES, min_size=count, max_size=count),
            "nulls": st.lists(st.sampled_from([right, None]), min_size=count, max_size=count),
        }.get(how, st.just([right] * count))
        try:
            array = pa.array(draw(values))
        except (pa.ArrowException, OverflowError, TypeError, ValueError):
            assume(False)
        columns += [(name, array)] * {"away": 0, "twice": 2}.get(how, 1)
    return pa.Table.from_arrays([array for _, array in columns], names=[name for name, _ in columns])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, small_files: Path) -> Path:
    root = tmp_path_factory.mktemp("any")
    shutil.copytree(small_files / "model", root / "model")
    return root


@given(tables())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_table_is_read_or_refused_in_lines(laptop: Any, place: Path, rows: pa.Table) -> None:
    file = place / "train.parquet"
    try:
        pq.write_table(rows, file)
    except (pa.ArrowException, NotImplementedError):  # Parquet has no such type
        assume(False)
    laptop.set(data_kind="parquet", data_train_path=str(file), data_validation_path=str(file))
    found = lines(laptop)
    faults = parquet_faults(file)
    assert len(found["D002"]) == 2 * len(faults) and all(len(line) < 2500 for line in found["D002"])
    if faults:
        return
    read = read_parquet(file)
    assert len(read.prompts) == len(read.truths) == rows.num_rows
    assert all(
        isinstance(one["role"], str) and isinstance(one["content"], str) for each in read.prompts for one in each
    )
