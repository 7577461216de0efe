# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: RUF001 (DeepSeek writes its special tokens with full-width bars)
"""Which chat template renders the prompts, and that what comes out is the prompt that the published recipes quote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer

from recipe.data.chat_template import OURS, chat_template_file, has_own, read_chat_template
from recipe.data.cli import main
from recipe.data.records import DataError
from recipe.data.templates import get_template
from recipe.data.tokens import PromptTokens
from recipe.launch.prompt_lengths import prompt_lengths
from recipe.tiny.tokenizer import BOS, save_tokenizer

PROBLEM = "What is $\\frac{1}{2} + \\frac{1}{3}$?"
# As both published recipes quote it.
QUOTED = (
    "A conversation between User and Assistant. The user asks a question, and the Assistant solves it. The assistant "
    "first thinks about the reasoning process in the mind and then provides the user with the answer. The reasoning "
    "process and answer are enclosed within <think> </think> and <answer> </answer> tags, respectively, i.e., <think> "
    "reasoning process here </think><answer> answer here </answer>. Put your final answer within \\boxed{}. "
    "<｜User｜>" + PROBLEM + "<｜Assistant｜>"
)


def model(path: Path, **settings: Any) -> Path:
    """A model's directory with the tiny model's tokenizer, which begins every text with its first token by itself."""
    save_tokenizer(path)
    loaded = Tokenizer.from_file(str(path / "tokenizer.json"))
    loaded.post_processor = TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, 0)])
    loaded.save(str(path / "tokenizer.json"))
    file = path / "tokenizer_config.json"
    kept = json.loads(file.read_text(encoding="utf-8")) | settings
    file.write_text(json.dumps({name: value for name, value in kept.items() if value is not None}))
    return path


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A base model: a tokenizer without a chat template."""
    (tmp_path / "base").mkdir()
    return model(tmp_path / "base", chat_template=None)


def test_the_prompt_is_the_quoted_one_byte_for_byte(base: Path) -> None:
    template = get_template("r1_zero")
    assert template.text(PROBLEM) == QUOTED
    assert PromptTokens(base).text(template, PROBLEM) == BOS + QUOTED


def test_verl_renders_it_with_one_beginning_of_sentence_token(base: Path, tmp_path: Path) -> None:
    from omegaconf import OmegaConf
    from verl.utils.dataset.rl_dataset import RLHFDataset

    file = tmp_path / "in.json"
    file.write_text(json.dumps([{"problem": PROBLEM, "answer": "\\frac{5}{6}"}, {"problem": "1+1", "answer": "2"}]))
    out, test = tmp_path / "out", ["--test-size", "1", "--seed", "0"]
    arguments = ["--json_path", str(file), "--output_dir", str(out), "--tokenizer", str(base), *test]
    report = tmp_path / "report.json"
    assert main([*arguments, "--report", str(report)]) == 0
    settings = {
        "max_prompt_length": 128, "filter_overlong_prompts_workers": 1, "cache_dir": str(tmp_path / "cache"),
        "apply_chat_template_kwargs": {"chat_template": read_chat_template(OURS)},
    }  # fmt: skip
    tokenizer = AutoTokenizer.from_pretrained(base)
    assert tokenizer("x")["input_ids"][0] == tokenizer.bos_token_id and not tokenizer.chat_template
    rendered = {}
    for name in ("train", "test"):
        row = RLHFDataset(str(out / f"{name}.parquet"), tokenizer, OmegaConf.create(settings))[0]
        ids = row["input_ids"][row["attention_mask"].bool()].tolist()
        assert ids == row["raw_prompt_ids"] and ids.count(tokenizer.bos_token_id) == 1
        rendered[row["extra_info"]["problem"]] = tokenizer.decode(ids), len(ids)
    assert rendered[PROBLEM][0] == BOS + QUOTED
    # All who count prompts count the same.
    lengths = sorted(length for _, length in rendered.values())
    assert sorted(prompt_lengths(base, out, OURS)) == lengths
    assert json.loads(report.read_text())["lengths"]["prompt_tokens"]["max"] == lengths[-1]


def test_the_template_of_the_run_file_goes_before_the_tokenizers_own_and_that_before_ours(tmp_path: Path) -> None:
    template = tmp_path / "given.jinja"
    (tmp_path / "own").mkdir()
    own = model(tmp_path / "own")
    assert chat_template_file(own) is None and has_own(own)
    assert chat_template_file(own, template) == template
    (own / "tokenizer_config.json").write_text("{}")
    assert chat_template_file(own) == OURS
    (own / "chat_template.jinja").write_text("{{ messages }}")
    assert chat_template_file(own) is None
    assert chat_template_file(tmp_path / "nowhere") == OURS


def test_a_given_template_renders(base: Path, tmp_path: Path) -> None:
    template = tmp_path / "given.jinja"
    template.write_text("{% for m in messages %}[{{ m.content }}]{% endfor %}\n")
    assert PromptTokens(base, template).text(get_template("plain"), "1+1") == "[1+1]"


@pytest.mark.parametrize("content", [b" \n", b"\xff", b"{{ '$' }}${ x }", None])
def test_a_template_that_cannot_be_used_is_named(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "t.jinja"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(DataError, match=r"chat template .*t\.jinja: "):
        read_chat_template(file)


def test_ours_takes_a_tokenizer_without_a_beginning_of_sentence_token(tmp_path: Path) -> None:
    (tmp_path / "qwen").mkdir()
    directory = model(tmp_path / "qwen", chat_template=None, bos_token=None)
    (directory / "special_tokens_map.json").unlink()
    assert PromptTokens(directory).text(get_template("r1_zero"), PROBLEM) == QUOTED
