# SPDX-License-Identifier: Apache-2.0
"""Answers are taken out of what is around them, and those that the run's reward cannot match are counted by kind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recipe.data.cli import main
from recipe.data.records import DataError
from recipe.data.truths import BOX, HASHES, LIST, OBJECT, REDUCED, SOLUTION, accepted_answers
from verl_patches.utils.reward_score.r1_zero import compute_score

#: What a record has: the accepted answers, and what was taken off around them.
WRAPPED: list[tuple[Any, list[str], list[str]]] = [
    ("4", ["4"], []),
    (" 4 ", ["4"], []),
    (4, ["4"], []),
    (True, ["true"], []),
    ("#### 4", ["4"], [HASHES]),
    ("2+2=4\n#### 1,004", ["1,004"], [HASHES]),
    ("\\boxed{4}", ["4"], [BOX]),
    ("$\\boxed{\\frac{1}{2}}$.", ["\\frac{1}{2}"], [BOX]),
    ("So $x=4$, and the answer is $\\boxed{4}$.", ["4"], [SOLUTION]),
    ("Hence\n\\[\\fbox{4}\\]", ["4"], [SOLUTION]),
    ("#### \\boxed{4}", ["4"], [HASHES, BOX]),
    (["4"], ["4"], [LIST]),
    ('["4"]', ["4"], [LIST]),
    ({"answer": "4", "unit": "m"}, ["4"], [OBJECT]),
    ('{"final_answer": ["\\\\boxed{4}"]}', ["4"], [OBJECT, LIST, BOX]),
    (["1/2", "0.5", 0.5], ["1/2", "0.5"], []),
    (["\\boxed{1}", "2", ""], ["1", "2"], [BOX]),
    ([], [], []),
    (None, [], []),
    ("", [], []),
    # These are answers as they stand.
    ("[1, 2]", ["[1, 2]"], []),
    ("{1, 2}", ["{1, 2}"], []),
    ("A box", ["A box"], []),
    ("\\boxed{1} or \\boxed{2}", ["\\boxed{1} or \\boxed{2}"], []),
    ("\\boxed{1} is wrong", ["\\boxed{1} is wrong"], []),
    ("\\boxed{1", ["\\boxed{1"], []),
]


@pytest.mark.parametrize(("value", "answers", "taken"), WRAPPED)
def test_what_is_around_an_answer_is_taken_off(value: Any, answers: list[str], taken: list[str]) -> None:
    assert accepted_answers(value, "here") == (answers, taken)


@pytest.mark.parametrize("value", [{"x": 1}, {}, [["1", "2"], "3"], float("nan"), "a\ud800", [["1"] * 2] * 2])
def test_what_can_be_no_answer_is_refused_with_its_place(value: Any) -> None:
    with pytest.raises(DataError, match=r"^here "):
        accepted_answers(value, "here")


def test_endless_wrapping_is_refused() -> None:
    value: Any = "4"
    for _ in range(20):
        value = [value]
    with pytest.raises(DataError, match="in more than 8 lists and objects"):
        accepted_answers(value, "here")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=30),
    lambda values: (
        st.lists(values, max_size=3) | st.dictionaries(st.sampled_from(["answer", "value", "x"]), values, max_size=2)
    ),
    max_leaves=5,
)


@settings(deadline=None)
@given(JSON)
def test_any_json_is_texts_or_one_line(value: Any) -> None:
    try:
        answers, taken = accepted_answers(value, "here")
    except DataError as error:
        assert "\n" not in str(error)
    else:
        assert all(answer and answer == answer.strip() for answer in answers) and set(taken) <= set(REDUCED)


RECORDS: list[dict[str, Any]] = [
    {"problem": "p0", "answer": "#### 4"},
    {"problem": "p1", "answer": "So \\boxed{4}"},
    {"problem": "p2", "answer": ["4"]},
    {"problem": "p3", "answer": "4"},
    {"problem": "p4", "answer": "It does not converge, since 1 = 2 there"},
    {"problem": "p5", "answer": "\\boxed{1} or \\boxed{2}"},
]


def convert(path: Path, records: list[dict[str, Any]], *more: str) -> tuple[list[Any], dict[str, Any]]:
    (path / "in.json").write_text(json.dumps(records))
    out = path / "out"
    report = path / "report.json"
    arguments = ["--json_path", str(path / "in.json"), "--output_dir", str(out), "--report", str(report), *more]
    assert main(arguments) == 0
    rows = [row for name in ("train", "test") for row in pq.read_table(out / f"{name}.parquet").to_pylist()]
    return sorted(rows, key=lambda row: row["extra_info"]["index"]), json.loads(report.read_text())


def test_the_conversion_says_what_it_did_to_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows, report = convert(tmp_path, RECORDS)
    assert [row["reward_model"]["ground_truth"] for row in rows] == ["4"] * 4
    assert [row["extra_info"]["problem"] for row in rows] == ["p0", "p1", "p2", "p3"]
    assert report["answers"] == {
        "reduced": {HASHES: 1, SOLUTION: 1, LIST: 1},
        "several_accepted": 0,
        "unreadable": {"prose": 1, "box": 1},
        "unreadable_examples": [
            {"index": 4, "answer": "It does not converge, since 1 = 2 there"},
            {"index": 5, "answer": "\\boxed{1} or \\boxed{2}"},
        ],
    }
    assert report["left_out"]["unreadable"] == 2 and report["left_out_first_records"]["unreadable"] == [4, 5]
    output = capsys.readouterr().out
    assert "2 with an answer that the reward cannot match (records 4, 5)" in output
    assert f"answers taken out of {SOLUTION}: 1" in output
    assert "answers that r1_zero cannot match: 2, left out" in output and "  1 prose\n" in output


def test_they_are_kept_when_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows, report = convert(tmp_path, RECORDS, "--unreadable", "keep")
    assert len(rows) == 6 and report["left_out"]["unreadable"] == 0
    assert report["answers"]["unreadable"] == {"prose": 1, "box": 1}
    assert "answers that r1_zero cannot match: 2, kept" in capsys.readouterr().out


def test_the_runs_rule_decides(tmp_path: Path) -> None:
    rows, report = convert(tmp_path, RECORDS, "--verifier", "math_lighteval")
    assert [row["extra_info"]["index"] for row in rows] == [0, 1, 2, 3, 4]
    assert report["settings"]["verifier"] == "math_lighteval"


def test_nothing_that_can_be_matched_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in.json").write_text(json.dumps(RECORDS[4:]))
    assert main(["--json_path", str(tmp_path / "in.json"), "--output_dir", str(tmp_path / "out")]) == 2
    assert "2 unreadable; --unreadable keep keeps answers" in capsys.readouterr().err


def test_several_accepted_answers_are_a_list_in_every_row_and_any_is_paid(tmp_path: Path) -> None:
    records = [{"problem": f"p{place}", "answer": "7"} for place in range(4)]
    rows, report = convert(tmp_path, [*records, {"problem": "p4", "answer": ["1/2", "x=2"]}], "--test-size", "1")
    assert [row["reward_model"]["ground_truth"] for row in rows] == [["7"]] * 4 + [["1/2", "x=2"]]
    assert report["answers"]["several_accepted"] == 1
    for answer, right in (("1/2", 1.0), ("2", 1.0), ("3", 0.0)):
        response = f"<think>a</think><answer>\\boxed{{{answer}}}</answer>"
        graded = compute_score("d", response, rows[4]["reward_model"]["ground_truth"], rows[4]["extra_info"])
        assert graded["acc"] == right


def test_several_accepted_answers_reach_verls_dataset(tmp_path: Path) -> None:
    from omegaconf import OmegaConf
    from transformers import AutoTokenizer
    from verl.utils.dataset.rl_dataset import RLHFDataset

    from recipe.tiny.tokenizer import save_tokenizer

    convert(tmp_path, [{"problem": f"p{place}", "answer": [place, f"x={place}"]} for place in range(3)])
    save_tokenizer(tmp_path)
    config = {"max_prompt_length": 64, "filter_overlong_prompts_workers": 1, "cache_dir": str(tmp_path / "cache")}
    file, tokenizer = str(tmp_path / "out/train.parquet"), AutoTokenizer.from_pretrained(tmp_path)
    row = RLHFDataset(file, tokenizer, OmegaConf.create(config))[0]
    index = row["index"]
    assert row["reward_model"]["ground_truth"] == [str(index), f"x={index}"]
    assert row["extra_info"]["problem"] == f"p{index}"


def test_a_pointer_of_git_lfs_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "in.json"
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")
    assert main(["--json_path", str(file), "--output_dir", str(tmp_path / "out")]) == 2
    assert "in.json: is a pointer of Git LFS, not the file it stands for; bring that" in capsys.readouterr().err


def test_a_parquet_file_without_the_fields_is_told_its_columns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "in.parquet"
    pq.write_table(pa.table({"question": ["1+1"], "label": ["2"], "solution": ["so"]}), file)
    assert main(["--json_path", str(file), "--output_dir", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "field 'problem' is missing, and so is 'answer'" in error
    assert "the record has 'question', 'label', 'solution', and problem, answer, solution were looked for" in error
