# SPDX-License-Identifier: Apache-2.0
"""Which chat template renders the prompts: the run's, else the tokenizer's own, else ours for tokenizers without one.

A chat template is a Jinja program; Hugging Face runs it in a sandbox, and nothing here runs it.
"""

from __future__ import annotations

import json
from pathlib import Path

from recipe.data.records import DataError

OURS = Path(__file__).resolve().parents[2] / "data" / "chat_template.jinja"
CONFIG, BESIDE = "tokenizer_config.json", "chat_template.jinja"


def chat_template_file(model: Path, template: Path | None = None) -> Path | None:
    """The file with the chat template to use instead of the tokenizer's; None: the tokenizer of ``model`` has its own.

    ``template`` is the one that was asked for. Raises ``DataError`` where tokenizer_config.json cannot be read.
    """
    if template is not None:
        return template
    return None if has_own(model) else OURS


def has_own(model: Path) -> bool:
    """Whether the tokenizer in ``model`` brings a chat template. Raises ``DataError`` as above."""
    try:
        if (model / BESIDE).is_file():
            return True
        values = json.loads((model / CONFIG).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return False
    except (OSError, ValueError) as error:
        raise DataError(f"{model / CONFIG} cannot be read ({error}); take that of the original model") from None
    return isinstance(values, dict) and bool(values.get("chat_template"))


def read_chat_template(file: Path) -> str:
    """The text of a chat template. Raises ``DataError`` for a file that cannot be read, is blank, or has "${" in it."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error.reason
        raise DataError(f"chat template {file}: cannot be read ({reason}); give a Jinja file in UTF-8") from None
    if not text.strip():
        raise DataError(f"chat template {file}: is blank; give a Jinja file that renders messages")
    if "${" in text:  # a reference to another setting in Hydra's command line, which hands it to verl
        raise DataError(f"chat template {file}: has '${{' in it, which verl would fill in; put a space between the two")
    return text
