# SPDX-License-Identifier: Apache-2.0
"""Prompts rendered and counted with a model's own tokenizer, in a process of its own.

`python -m recipe.checks.facts.tokens` reads {"model": DIRECTORY, "prompts": [[{"role", "content"}, ...], ...], "marks":
[TEXT, ...], "chat_template": TEXT or null} and prints {"lengths": [...], "text": the first prompt, "pieces": {TEXT:
tokens}} or {"error": ...}. The tokenizer's library takes seconds and a hundred megabytes, and the launcher should not
carry it through the run.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from recipe.checks.finding import CannotTell
from recipe.data.templates import CHAT
from recipe.data.tokens import load_tokenizer
from recipe.own_packages import REPOSITORY

LIMIT_S = 90
# The marks that DeepSeek's tokenizers know as one token each.
MARKS = [part for part in CHAT.replace("{system}", " ").replace("{user}", " ").split() if part]


def measure(model: Path, prompts: list[list[dict[str, str]]], chat_template: str | None = None) -> dict[str, Any]:
    """What the child says of the prompts and of MARKS; without `chat_template` the tokenizer's own renders.

    CannotTell without the library, or when it takes too long.
    """
    environment = {
        **os.environ, "USE_TORCH": "0", "TORCH_DEVICE_BACKEND_AUTOLOAD": "0", "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false", "TRANSFORMERS_VERBOSITY": "error",
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")]),
    }  # fmt: skip
    question = json.dumps({"model": str(model), "prompts": prompts, "marks": MARKS, "chat_template": chat_template})
    try:
        done = subprocess.run(
            [sys.executable, "-m", "recipe.checks.facts.tokens"], input=question, env=environment, capture_output=True,
            text=True, timeout=LIMIT_S, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise CannotTell(f"the tokenizer took more than {LIMIT_S} s") from None
    try:
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise CannotTell(f"the tokenizer could not be asked: {last}") from None
    if answer.get("missing"):
        raise CannotTell(f"the package {answer['missing']} is not installed")
    return answer


def _answer(question: dict[str, Any]) -> dict[str, Any]:
    try:
        import transformers  # noqa: F401  whether it is there
    except ModuleNotFoundError as error:
        return {"missing": error.name}
    try:
        tokenizer = load_tokenizer(Path(question["model"]))
        if question["chat_template"] is not None:
            tokenizer.chat_template = question["chat_template"]
        texts = [
            tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=False)
            for prompt in question["prompts"]
        ]
        lengths = [len(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]
        pieces = {text: len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in question["marks"]}
    except Exception as error:  # whatever foreign files, and the program that a chat template is, make it raise
        return {"error": (str(error).splitlines() or [type(error).__name__])[0]}
    return {"lengths": lengths, "text": texts[0] if texts else "", "pieces": pieces}


if __name__ == "__main__":
    print(json.dumps(_answer(json.load(sys.stdin))))
