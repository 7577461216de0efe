# SPDX-License-Identifier: Apache-2.0
"""Tokens of a run as text."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from recipe.runfile.paths import COMMAND
from recipe.text import printable

_MODEL = "actor_rollout_ref.model.path="


def decoder(run_dir: Path) -> Callable[[Sequence[int]], str]:
    """What makes text of tokens, by the tokenizer of the run's model; their numbers where that is gone."""
    file = _tokenizer_file(run_dir)
    if file is None or not file.is_file():
        return lambda tokens: " ".join(map(str, tokens))
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(file))
    return lambda tokens: printable(tokenizer.decode(list(tokens), skip_special_tokens=False))


def _tokenizer_file(run_dir: Path) -> Path | None:
    arguments = json.loads((run_dir / COMMAND).read_text(encoding="utf-8")).get("argv", [])
    model = next((argument for argument in arguments if argument.startswith(_MODEL)), None)
    return None if model is None else Path(model.removeprefix(_MODEL).strip("'\"")) / "tokenizer.json"
