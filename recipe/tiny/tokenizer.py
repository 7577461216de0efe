# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: RUF001 (DeepSeek writes its special tokens with full-width bars)
"""A byte-level BPE tokenizer trained on the run's own prompts.

Every token costs simulator time, so what all prompts share should be few tokens: the merges may cross spaces, and the
whole system message of ``r1_zero`` becomes one token. Digits stay single, or sums would be a table to learn by heart.
All 256 bytes are in the vocabulary, so that any text can be written.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from recipe.data.chat_template import OURS, read_chat_template
from recipe.data.templates import get_template
from recipe.tiny.arithmetic import Sum, guess

if TYPE_CHECKING:
    from tokenizers import Tokenizer

VOCAB_SIZE = 640  # a multiple of 64 on each of two tensor parallel ranks, which is vLLM's and Megatron's padding
BOS, EOS, PAD = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>"
USER, ASSISTANT = "<｜User｜>", "<｜Assistant｜>"
SPECIAL_TOKENS = (BOS, EOS, PAD, USER, ASSISTANT)  # ids 0 to 4 in this order

# Frequent words of word problems, so that other data sets (GSM8K) do not come out byte by byte.
COMMON_WORDS = (
    "the of and to a in is for that he she her his they it how many much what if each has have had was were are be "
    "with on at by from than more less as all there then total day week month year hour minute per cost price money "
    "dollars pay spend sell buy bought sold give left some one two three four five ten times half twice number people "
    "children students books apples eggs miles pounds feet an or not will can does did do take make need first second "
    "third other every same after before into out up down percent average find equal value sum difference product "
    "remaining altogether answer"
)


def train_tokenizer() -> Tokenizer:
    """Trains the BPE merges. No randomness: the same tokenizers version gives the same vocabulary."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\d|\n"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    sums = [Sum(left, right) for left in range(10) for right in range(10)]
    texts = [get_template("r1_zero").system or ""] * 200
    texts += [text for item in sums for text in (item.question, item.worked, guess(item.value)) for _ in range(2)]
    # Each word alone in its text, with the space before it: longer merges would only learn the order of this list.
    # Earlier words weigh more, because the list is roughly by frequency.
    words = COMMON_WORDS.split()
    texts += [f" {word}" for place, word in enumerate(words) for _ in range(20 - place * 18 // len(words))]
    tokenizer.train_from_iterator(texts, trainer)
    if tokenizer.get_vocab_size() != VOCAB_SIZE:
        raise RuntimeError(f"the texts gave {tokenizer.get_vocab_size()} tokens, expected {VOCAB_SIZE}: add words")
    return tokenizer


def save_tokenizer(directory: Path) -> None:
    """Writes ``tokenizer.json``, ``tokenizer_config.json`` and ``special_tokens_map.json``."""
    train_tokenizer().save(str(directory / "tokenizer.json"))
    names = {"bos_token": BOS, "eos_token": EOS, "pad_token": PAD}
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **names,
        "add_bos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 2048,
        "padding_side": "left",
        "chat_template": read_chat_template(OURS),
    }
    for name, value in (("tokenizer_config.json", config), ("special_tokens_map.json", names)):
        (directory / name).write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
