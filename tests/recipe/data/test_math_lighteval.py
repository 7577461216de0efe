# SPDX-License-Identifier: Apache-2.0
"""A directory of MATH-lighteval, as the hubs' clients leave it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recipe.data.math_lighteval import main
from recipe.data.templates import get_template


def rows(first: int, count: int) -> list[dict[str, Any]]:
    return [
        {"problem": f"What is {i} + 1?", "level": "Level 1", "type": "Algebra", "solution": f"So $\\boxed{{{i + 1}}}$."}
        for i in range(first, first + count)
    ]


def parquet(file: Path, content: list[dict[str, Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(content), file)


def run(source: Path, target: Path, *others: str) -> int:
    return main(["--input_dir", str(source), "--local_dir", str(target), *others])


def test_its_own_split_is_kept_and_a_second_time_changes_nothing(tmp_path: Path) -> None:
    """Output beside the input, as published; the files of single subjects beside `data` are other configurations."""
    parquet(tmp_path / "data/train-00000-of-00001.parquet", rows(0, 6))
    parquet(tmp_path / "data/test-00000-of-00001.parquet", rows(10, 3))
    parquet(tmp_path / "algebra/train-00000-of-00001.parquet", rows(0, 2))
    made = []
    for _ in range(2):
        assert run(tmp_path, tmp_path) == 0
        made.append([(tmp_path / f"{split}.parquet").read_bytes() for split in ("train", "test")])
    assert made[0] == made[1]
    train, test = (pq.read_table(tmp_path / f"{split}.parquet").to_pylist() for split in ("train", "test"))
    assert [row["extra_info"]["index"] for row in test] == [0, 1, 2] and len(train) == 6
    assert test[0]["reward_model"]["ground_truth"] == "11" and test[0]["data_source"] == "lighteval/MATH"
    assert test[0]["prompt"] == get_template("boxed_cot").messages("What is 10 + 1?")


def test_json_lines_and_any_option_of_the_conversion(tmp_path: Path) -> None:
    for split, content in (("train", rows(0, 4)), ("test", rows(9, 2))):
        (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, content)))
    report = tmp_path / "out/report.json"
    assert run(tmp_path, tmp_path / "out", "--template", "r1_zero", "--report", str(report)) == 0
    facts = json.loads(report.read_text())
    assert (facts["train"], facts["test"]) == (4, 2)
    assert (facts["settings"]["template"], facts["settings"]["verifier"]) == ("r1_zero", "math_lighteval")


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ([], "has no train*.parquet"),
        (["train.parquet"], "has no train*.parquet"),  # what this would write
        (["data/train-0.parquet"], "has no test*.parquet"),
        (
            ["data/train-0.parquet", "data/train-1.parquet"],
            "2 files of the split train (train-0.parquet, train-1.parquet)",
        ),
        (["trained.parquet", "test.jsonl"], "has no train*.parquet"),
    ],
)
def test_what_is_no_such_directory_is_told_in_a_line(
    files: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in files:
        parquet(tmp_path / name, rows(0, 2))
    assert run(tmp_path, tmp_path) == 2
    error = capsys.readouterr().err
    assert said in error and error.startswith("error: ") and error.count("\n") == 1
