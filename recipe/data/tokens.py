# SPDX-License-Identifier: Apache-2.0
"""Prompts in tokens, counted as verl's ``RLHFDataset`` counts them: with the chat template that the run has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from recipe.data.chat_template import chat_template_file, read_chat_template
from recipe.data.records import DataError
from recipe.data.rows import Row
from recipe.data.templates import Template
from recipe.tokenizer.ranks import tokenizer_json_fix

BATCH = 1024


def load_tokenizer(directory: Path) -> Any:
    """The tokenizer of a model's directory, by none of its own code; a foreign file can make it raise anything."""
    from transformers import AutoTokenizer

    # Where it is left out, the library asks whoever sits there whether it may run the model's code.
    return AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False)


class PromptTokens:
    """Renders and measures prompts with the tokenizer of a model directory. Raises ``DataError`` for a bad one.

    ``chat_template`` is the file to render with; None: the tokenizer's own, or ours for one without.
    """

    def __init__(self, directory: Path, chat_template: Path | None = None) -> None:
        if not directory.is_dir():
            raise DataError(f"--tokenizer: {directory} is not a directory; give a model's, with tokenizer.json in it")
        try:
            self._tokenizer = load_tokenizer(directory)
        except Exception as error:  # a foreign file can make the library raise anything
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            fix = tokenizer_json_fix(directory)
            raise DataError(
                f"--tokenizer: {directory} holds no tokenizer that can be read: {reason}" + (f"; {fix}" if fix else "")
            ) from error
        file = chat_template_file(directory, chat_template)
        if file is not None:
            self._tokenizer.chat_template = read_chat_template(file)

    def text(self, template: Template, problem: str, system: str = "") -> str:
        """The prompt that the model will see."""
        messages = template.messages(problem, system)
        try:
            return str(self._tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False))
        except Exception as error:  # a chat template is a program of the model's; some refuse system messages
            roles = " and ".join(message["role"] for message in messages)
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise DataError(f"--tokenizer: the chat template refuses messages of {roles}: {reason}") from error

    def lengths(
        self, template: Template, rows: Sequence[Row], progress: Callable[[int], None] | None = None
    ) -> list[int]:
        """Tokens of each prompt."""
        lengths: list[int] = []
        for start in range(0, len(rows), BATCH):
            texts = [self.text(template, row.problem, row.system) for row in rows[start : start + BATCH]]
            lengths += map(len, self._tokenizer(texts, add_special_tokens=False)["input_ids"])
            if progress is not None:
                progress(len(lengths))
        return lengths
