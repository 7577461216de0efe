# SPDX-License-Identifier: Apache-2.0
"""The tokenizer: short for the run's own text, lossless for any text, loadable without remote code."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from recipe.data.templates import get_template
from recipe.tiny.arithmetic import Sum
from recipe.tiny.tokenizer import BOS, EOS, PAD, VOCAB_SIZE, save_tokenizer, train_tokenizer


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(path)
    return path


@pytest.fixture(scope="module")
def tokenizer(directory: Path) -> PreTrainedTokenizerFast:
    return AutoTokenizer.from_pretrained(directory, trust_remote_code=False)


def render(tokenizer: PreTrainedTokenizerFast, problem: str) -> list[int]:
    return tokenizer.apply_chat_template(get_template("r1_zero").messages(problem), add_generation_prompt=True)


def test_special_tokens_are_distinct_and_the_vocabulary_divides(tokenizer: PreTrainedTokenizerFast) -> None:
    ids = [tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id]
    assert ids == [0, 1, 2]
    assert [tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token] == [BOS, EOS, PAD]
    assert len(tokenizer) == VOCAB_SIZE and VOCAB_SIZE % 128 == 0


def test_prompts_and_answers_are_short(tokenizer: PreTrainedTokenizerFast) -> None:
    for left in range(20):
        for right in range(20):
            item = Sum(left, right)
            assert len(render(tokenizer, item.question)) <= 11
            assert len(tokenizer(item.worked)["input_ids"]) + 1 <= 14


def test_digits_are_single_tokens(tokenizer: PreTrainedTokenizerFast) -> None:
    assert tokenizer.tokenize("2025") == ["2", "0", "2", "5"]


def test_prompt_has_the_shape_of_deepseeks_chat(tokenizer: PreTrainedTokenizerFast) -> None:
    messages = [*get_template("r1_zero").messages("p"), {"role": "assistant", "content": "a"}]
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    system = messages[0]["content"]
    assert text == f"{BOS}{system}<\uff5cUser\uff5c>p<\uff5cAssistant\uff5c>a{EOS}"
    prompt = tokenizer.apply_chat_template(messages[:2], tokenize=False, add_generation_prompt=True)
    assert text.startswith(prompt) and prompt.endswith("<\uff5cAssistant\uff5c>")


def test_unknown_role_is_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(Exception, match="role tool is not known"):
        tokenizer.apply_chat_template([{"role": "tool", "content": "x"}])


@given(st.text(max_size=60))
@settings(deadline=None)
def test_any_text_comes_back(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_training_gives_the_same_vocabulary_each_time() -> None:
    assert train_tokenizer().to_str() == train_tokenizer().to_str()


def test_files_are_readable_by_others(directory: Path) -> None:
    names = {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"}
    assert {path.name for path in directory.iterdir()} == names
    assert all(os.stat(directory / name).st_mode & 0o044 == 0o044 for name in names)
