# SPDX-License-Identifier: Apache-2.0
"""`python -m recipe.launch.prompt_lengths MODEL DATA OUT.json [TEMPLATE]`: tokens of every prompt in the run.

TEMPLATE is the file of the chat template to render with; without it, the tokenizer's own.

A process of its own, because the tokenizer brings libraries that the launcher would carry through the whole run.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from recipe.data.chat_template import read_chat_template
from recipe.data.tokens import load_tokenizer


def prompt_lengths(model: Path, data: Path, template: Path | None = None) -> list[int]:
    """Tokens of each prompt in `data/train.parquet` and `data/test.parquet`, with `template` or the model's own."""
    import pyarrow.parquet

    tokenizer = load_tokenizer(model)
    if template is not None:
        tokenizer.chat_template = read_chat_template(template)
    lengths = []
    for split in ("train", "test"):
        prompts = pyarrow.parquet.read_table(data / f"{split}.parquet", columns=["prompt"])["prompt"].to_pylist()
        lengths += [len(tokenizer.apply_chat_template(prompt, add_generation_prompt=True)) for prompt in prompts]
    return lengths


def main() -> int:
    model, data, out, *template = (Path(argument) for argument in sys.argv[1:5])
    out.write_text(json.dumps(prompt_lengths(model, data, *template)), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
