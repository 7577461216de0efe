# SPDX-License-Identifier: Apache-2.0
"""`python -m recipe.launch.prompt_lengths MODEL DATA OUT.json`: tokens of every prompt, as the run will render them.

A process of its own, because the tokenizer brings libraries that the launcher would carry through the whole run.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def prompt_lengths(model: Path, data: Path) -> list[int]:
    """Tokens of each prompt in `data/train.parquet` and `data/test.parquet` with the chat template of `model`."""
    import pyarrow.parquet
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model, local_files_only=True)
    lengths = []
    for split in ("train", "test"):
        prompts = pyarrow.parquet.read_table(data / f"{split}.parquet", columns=["prompt"])["prompt"].to_pylist()
        lengths += [len(tokenizer.apply_chat_template(prompt, add_generation_prompt=True)) for prompt in prompts]
    return lengths


def main() -> int:
    model, data, out = (Path(argument) for argument in sys.argv[1:4])
    out.write_text(json.dumps(prompt_lengths(model, data)), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
