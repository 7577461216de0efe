# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: RUF001 (texts of many scripts)
"""A model's directory with a tiktoken tokenizer: trained here, in the form that Moonlight and Kimi-K2 have."""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import regex

V1 = regex.VERSION1

PARTS = [
    r"[\p{Han}]+",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+(?i:'s|'t|'ll)?",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?i:'s|'t|'ll)?",
    r"\p{N}{1,3}",
    r" ?[^\s\p{L}\p{N}]+[\r\n]*",
    r"\s*[\r\n]+",
    r"\s+(?!\S)",
    r"\s+",
]
PATTERN = "|".join(PARTS)
RESERVED = 256
VOCAB = 1200
#: Offsets behind the ranks, and what stands there.
NAMED = {0: "[BOS]", 1: "[EOS]", 2: "<|im_end|>", 3: "<|im_user|>", 11: "<tool>", 254: "[UNK]", 255: "[PAD]"}
CODE = """
import os
raise SystemExit("this file was run")
class TikTokenTokenizer:
    num_reserved_special_tokens = 256
    pat_str = "|".join([
{parts}
    ])
"""
TEXTS = (
    "It's a box of 12345 nails, and they'll see Tom's \\boxed{\\frac{1}{2}} = 0.5!\n\n  def f(x):\n        return x\n",
    "中文English混合，第１２３章。今天天气很好，我们去公园。數學題：求和。日本語のテキストです。한국어 문장입니다.",
    "ÄÖÜ é è ñ naïve café \u03b1\u03b2\u03b3 \u0430\u0431\u0432 aaa aaaa aaaaa      -----   ===== \t\t\t 😀😀 👩‍👧",
)


def trained_ranks(texts: Iterable[str], size: int) -> dict[bytes, int]:
    """Byte-pair training: the most frequent pair of adjacent tokens becomes the next token, up to `size` of them."""
    pieces = [[bytes([b]) for b in piece[0].encode()] for text in texts for piece in regex.finditer(PATTERN, text, V1)]
    ranks = {bytes([byte]): byte for byte in range(256)}
    while len(ranks) < size:
        counts = Counter(pair for piece in pieces for pair in pairwise(piece) if b"".join(pair) not in ranks)
        if not counts:
            break
        pair = max(counts, key=lambda pair: (counts[pair], pair))
        ranks[b"".join(pair)] = len(ranks)
        for piece in pieces:
            for place in range(len(piece) - 1):
                if tuple(piece[place : place + 2]) == pair:
                    piece[place : place + 2] = [b"".join(pair)]
    return ranks


def write_model(directory: Path, ranks: dict[bytes, int], **changes: Any) -> Path:
    """The files of a model with these ranks; `changes` to its tokenizer_config.json."""
    directory.mkdir(parents=True, exist_ok=True)
    lines = [f"{base64.b64encode(token).decode()} {rank}\n" for token, rank in ranks.items()]
    (directory / "tiktoken.model").write_text("".join(lines))
    (directory / "tokenization_moonshot.py").write_text(
        CODE.replace("{parts}", "".join(f'        r"""{part}""",\n' for part in PARTS))
    )
    first = len(ranks)
    flags = dict.fromkeys(("lstrip", "normalized", "rstrip", "single_word"), False)
    config = {
        "added_tokens_decoder": {
            str(first + offset): {"content": name, **flags, "special": name != "<tool>"}
            for offset, name in NAMED.items()
        },
        "additional_special_tokens": ["<|im_end|>", "<|im_user|>"],
        "auto_map": {"AutoTokenizer": ["tokenization_moonshot.TikTokenTokenizer", None]},
        "bos_token": "[BOS]",
        "eos_token": "[EOS]",
        "unk_token": "[UNK]",
        "pad_token": "[PAD]",
        "clean_up_tokenization_spaces": False,
        "chat_template": "{% for m in messages %}<|im_user|>{{ m['content'] }}<|im_end|>{% endfor %}",
        "model_max_length": 8192,
        "tokenizer_class": "TikTokenTokenizer",
        **changes,
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    (directory / "config.json").write_text(json.dumps({"vocab_size": first + RESERVED, "model_type": "deepseek_v3"}))
    return directory
