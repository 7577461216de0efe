# SPDX-License-Identifier: Apache-2.0
"""The command line: summary, report, prompt lengths, errors, and the process as a whole."""

from __future__ import annotations

import gzip
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer

from recipe.data.cli import main
from recipe.data.formats import FORMATS
from recipe.data.summary import spread
from recipe.data.templates import get_template
from recipe.text import spelled_out
from recipe.tiny.tokenizer import save_tokenizer

REPO = Path(__file__).resolve().parents[3]


def source(path: Path, count: int = 12) -> Path:
    file = path / "in.json"
    file.write_text(
        json.dumps([{"problem": f"1 + {i}", "answer": str(1 + i), "solution": "s" * i} for i in range(count)])
    )
    return file


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model's, made to begin every text with a special token, as most tokenizers do."""
    path = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(path)
    loaded = Tokenizer.from_file(str(path / "tokenizer.json"))
    name, number = next((text, place) for text, place in loaded.get_vocab().items() if "end" in text)
    loaded.post_processor = TemplateProcessing(single=f"{name} $A", special_tokens=[(name, number)])
    loaded.save(str(path / "tokenizer.json"))
    assert AutoTokenizer.from_pretrained(path)("1")["input_ids"][0] == number
    return path


def test_report_says_everything_and_is_the_same_twice(tmp_path: Path) -> None:
    file = source(tmp_path)
    for name in ("a", "b"):
        arguments = ["--json_path", str(file), "--output_dir", str(tmp_path / name), "--test-size", "4"]
        assert main([*arguments, "--report", str(tmp_path / name / "deep" / "report.json")]) == 0
    texts = [(tmp_path / name / "deep" / "report.json").read_text(encoding="utf-8") for name in ("a", "b")]
    assert texts[0] == texts[1]
    report = json.loads(texts[0])
    assert (report["records"], report["train"], report["test"]) == (12, 8, 4)
    assert set(report["left_out"].values()) == {0}
    assert report["settings"] == {
        "format": "deepscaler",
        "keys": {"prompt": "problem", "answer": "answer", "solution": "solution"},
        "template": "r1_zero", "seed": 42, "split": 4, "data_source": "deepscaler", "max_prompt_tokens": None,
        "verifier": "r1_zero", "unreadable": "drop",
    }  # fmt: skip
    assert report["lengths"]["solution_characters"] == {"min": 0, "median": 5, "p95": 11, "max": 11}
    train = pq.read_table(tmp_path / "a/train.parquet").to_pylist()
    for sample, row in zip(report["samples"], train[:3], strict=True):
        assert sample["index"] == row["extra_info"]["index"]
        assert sample["ground_truth"] == row["reward_model"]["ground_truth"]
        assert sample["prompt"] == get_template("r1_zero").text(f"1 + {sample['index']}")
    content = (tmp_path / "a/train.parquet").read_bytes()
    expected = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    assert report["files"]["train.parquet"] == expected


def test_summary_shows_counts_lengths_and_three_prompts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--json_path", str(source(tmp_path)), "--output_dir", str(tmp_path / "out")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("out/train.parquet: 10 rows") and lines[1].endswith("out/test.parquet: 2 rows")
    assert lines[2] == "records read: 12, left out: 0"
    assert next(line for line in lines if "solution characters" in line).split()[2:] == ["0", "5", "11", "11"]
    assert sum(line.startswith("--- record ") for line in lines) == 3
    assert sum(line.endswith("<｜Assistant｜>") for line in lines) == 3  # noqa: RUF001


def test_prompts_over_the_limit_are_left_out_and_counted_as_verl_counts(
    tmp_path: Path, tokenizer: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "in.json"
    problems = ["1 + " * i + "1" for i in range(1, 30)]
    file.write_text(json.dumps([{"problem": problem, "answer": "1"} for problem in problems]))
    loaded, template = AutoTokenizer.from_pretrained(tokenizer), get_template("r1_zero")
    lengths = [len(loaded.apply_chat_template(template.messages(p), add_generation_prompt=True)) for p in problems]
    limit = sorted(lengths)[9]
    arguments = ["--json_path", str(file), "--output_dir", str(tmp_path / "out"), "--tokenizer", str(tokenizer)]
    report = tmp_path / "report.json"
    assert main([*arguments, "--max-prompt-tokens", str(limit), "--report", str(report)]) == 0
    facts = json.loads(report.read_text())
    assert facts["left_out"]["too_long"] == sum(length > limit for length in lengths) > 0
    kept = [length for length in lengths if length <= limit]
    assert facts["lengths"]["prompt_tokens"] == spread(kept)
    indices = {
        row["extra_info"]["index"]
        for name in ("train", "test")
        for row in pq.read_table(tmp_path / f"out/{name}.parquet").to_pylist()
    }
    assert indices == {place for place, length in enumerate(lengths) if length <= limit}
    rendered = loaded.apply_chat_template(
        template.messages(problems[facts["samples"][0]["index"]]), add_generation_prompt=True, tokenize=False
    )
    assert facts["samples"][0]["prompt"] == rendered
    assert "with too long a prompt" in capsys.readouterr().out


def test_bad_arguments_are_one_line(tmp_path: Path, tokenizer: Path, capsys: pytest.CaptureFixture[str]) -> None:
    usual = ["--json_path", str(source(tmp_path)), "--output_dir", str(tmp_path / "out")]
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "tokenizer.json").write_text("{}")
    kimi = tmp_path / "kimi"
    kimi.mkdir()
    (kimi / "tiktoken.model").write_text("AA== 0")
    (tmp_path / "blank.jinja").write_text(" ")
    picky = tmp_path / "picky"
    picky.mkdir()
    save_tokenizer(picky)
    settings = json.loads((picky / "tokenizer_config.json").read_text(encoding="utf-8"))
    settings["chat_template"] = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('No system\\nhere') }}{% endif %}"
    )
    (picky / "tokenizer_config.json").write_text(json.dumps(settings))
    for arguments, expected in (
        (["--tokenizer", str(picky)], "the chat template refuses messages of system and user: No system"),
        (["--test-size", "3", "--test_json_path", "x.json"], "--test-size and --test_json_path both say"),
        (["--max-prompt-tokens", "9"], "--max-prompt-tokens needs --tokenizer"),
        (["--tokenizer", str(tmp_path / "absent")], "is not a directory"),
        (["--tokenizer", str(kimi)], f"; run: python -m recipe tokenizer-json {kimi}"),
        (["--tokenizer", str(broken)], "holds no tokenizer that can be read"),
        (["--chat-template", "x.jinja"], "--chat-template needs --tokenizer"),
        (
            ["--tokenizer", str(tokenizer), "--chat-template", "x.jinja"],
            "chat template x.jinja: cannot be read (No such",
        ),
        (["--tokenizer", str(tokenizer), "--chat-template", str(tmp_path / "blank.jinja")], "blank.jinja: is blank"),
        (["--tokenizer", str(tokenizer), "--max-prompt-tokens", "1"], "no usable rows among 12 records: 12 too_long"),
        (["--map-keys", "{"], "--map-keys: expected a JSON object"),
        (["--report", str(tmp_path)], "is a directory; give a file"),
    ):
        assert main([*usual, *arguments]) == 2, arguments
        error = capsys.readouterr().err
        assert expected in error and error.count("\n") == 1 and error.startswith("error: ")
        assert not (tmp_path / "out").exists()


def test_a_record_s_system_message_goes_before_the_template_s(
    tmp_path: Path, tokenizer: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, report = tmp_path / "in.json", tmp_path / "report.json"
    own = "Answer in one line, and think before that at length."
    file.write_text(json.dumps([{"problem": f"{i}", "answer": "1", "s": own if i % 2 else ""} for i in range(10)]))
    arguments = ["--json_path", str(file), "--output_dir", str(tmp_path / "out"), "--map-keys", '{"system": "s"}']
    assert main([*arguments, "--tokenizer", str(tokenizer), "--report", str(report)]) == 0
    template, loaded = get_template("r1_zero"), AutoTokenizer.from_pretrained(tokenizer)
    lengths = set()
    for split in ("train", "test"):
        for row in pq.read_table(tmp_path / f"out/{split}.parquet").to_pylist():
            system, user = row["prompt"]
            assert system == {"role": "system", "content": own if int(user["content"]) % 2 else template.system}
            lengths.add(len(loaded.apply_chat_template(row["prompt"], add_generation_prompt=True)))
    facts = json.loads(report.read_text())
    spread_of = facts["lengths"]["prompt_tokens"]
    assert len(lengths) == 2 and (spread_of["min"], spread_of["max"]) == (min(lengths), max(lengths))
    assert any(own in sample["prompt"] for sample in facts["samples"])
    (tmp_path / "mine.toml").write_text("[mine]\nuser = '{problem}'\nchat = '{user}'\n")
    capsys.readouterr()
    assert main([*arguments, "--template", str(tmp_path / "mine.toml")]) == 2
    assert "the chat of template 'mine' has no {system} to put it in" in capsys.readouterr().err


def test_input_is_never_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--json_path", str(source(tmp_path)), "--output_dir", str(tmp_path)]) == 0
    before = (tmp_path / "train.parquet").read_bytes()
    keys = '{"prompt": "prompt.1.content", "answer": "reward_model.ground_truth", "solution": "extra_info.answer"}'
    arguments = ["--json_path", str(tmp_path / "train.parquet"), "--map-keys", keys, "--output_dir"]
    assert main([*arguments, str(tmp_path / "x" / "..")]) == 2
    assert "train.parquet would be overwritten" in capsys.readouterr().err
    assert (tmp_path / "train.parquet").read_bytes() == before
    # What was written can be read again, into another directory.
    assert main([*arguments, str(tmp_path / "again")]) == 0
    assert pq.read_table(tmp_path / "again/train.parquet").num_rows == 9


def test_text_that_would_steer_the_terminal_is_written_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert spelled_out("a\x1b[2Jb\n\u202ec\u00fc") == "a\\x1b[2Jb\n\\u202ecü"
    file = tmp_path / "in.json"
    file.write_text(json.dumps([{"problem": f"\x1b]0;x\x07 {i}", "answer": f"{i}\x1b"} for i in range(3)]))
    arguments = ["--json_path", str(file), "--output_dir", str(tmp_path / "out")]
    assert main([*arguments, "--unreadable", "keep"]) == 0
    file.write_text('{"\\u001b[2J\\n": 1}')
    assert main(["--json_path", str(file), "--output_dir", str(tmp_path / "out")]) == 2
    output = capsys.readouterr()
    assert "\x1b" not in output.out + output.err and output.err.count("\n") == 1


def test_script_in_a_terminal_that_knows_no_unicode(tmp_path: Path) -> None:
    file = tmp_path / "in.jsonl"
    file.write_bytes(gzip.compress(b'{"question": "a", "answer": "#### 1"}\n{"question": "b", "answer": "#### 2"}\n'))
    script = [sys.executable, str(REPO / "scripts/json_to_parquet.py"), "--json_path", str(file)]
    done = subprocess.run(
        [*script, "--output_dir", str(tmp_path / "out"), "--format", "gsm8k"],
        capture_output=True, text=True, env={"PYTHONIOENCODING": "ascii", "PATH": ""}, cwd=tmp_path, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "\\uff5cAssistant\\uff5c" in done.stdout
    assert pq.read_table(tmp_path / "out/train.parquet").to_pylist()[0]["data_source"] == "openai/gsm8k"


def test_heavy_packages_stay_out(tmp_path: Path) -> None:
    code = "import sys; from recipe.data.cli import main; print(main(), *sys.modules, file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", code, "--json_path", str(source(tmp_path)), "--output_dir", str(tmp_path / "out")],
        capture_output=True, text=True, cwd=REPO, check=False,
    )  # fmt: skip
    words = done.stderr.split()
    assert words[0] == "0" and not {"pandas", "torch", "transformers", "datasets"} & set(words)


def test_help_names_every_format_and_template(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    text = capsys.readouterr().out
    assert caught.value.code == 0
    assert all(name in text for name in (*FORMATS, "r1_zero", "plain", "boxed_cot", "answer_line"))
