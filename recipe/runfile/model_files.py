# SPDX-License-Identifier: Apache-2.0
"""What the files beside a run's model say: its sizes, and its chat template."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recipe.data.chat_template import chat_template_file, read_chat_template
from recipe.data.records import DataError
from recipe.models.architecture import Architecture, differing
from recipe.models.config_file import read_config
from recipe.models.families import describe, require_converted
from recipe.models.family import ModelError
from recipe.models.published import KNOWN
from recipe.runfile.errors import ConfigError
from recipe.runfile.schema import RunConfig
from recipe.tiny.config import tiny_fields


def model_config(config: RunConfig, model: Path) -> Mapping[str, Any] | None:
    """The config.json of the run's model; None where it cannot be seen.

    Raises:
        ConfigError: it is not JSON.
    """
    if config.model.kind == "tiny":
        return tiny_fields(config.model.sizes, config.model.member)
    try:
        return read_config(model)
    except ModelError as error:
        raise ConfigError(str(error)) from None


def architecture(config: RunConfig, model: Path) -> Architecture | None:
    """The sizes of the model: from its config.json, else those that [model] architecture names; None: not known.

    Raises:
        ConfigError: config.json cannot be used, or is of another architecture than the run file's.
    """
    named, values = KNOWN.get(config.model.architecture or ""), model_config(config, model)
    label = config.model.path or "the tiny model"
    if values is None:
        return named
    try:
        sizes = describe(values)
        require_converted(values)
    except ModelError as error:
        raise ConfigError(f"{label}: config.json: {error}") from None
    if named is not None and sizes != named:
        raise ConfigError(
            f"{label}: config.json differs from [model] architecture = {config.model.architecture!r} in "
            f"{', '.join(differing(sizes, named))}; correct one of them"
        )
    return sizes


def chat_template(config: RunConfig, model: Path) -> Path | None:
    """The file with the chat template that prompts are rendered with; None: the tokenizer in `model` has its own.

    A tokenizer that is not on this machine is assumed to have its own.

    Raises:
        ConfigError: tokenizer_config.json cannot be read.
    """
    template = config.data.chat_template
    if template is None and not _is_here(model):
        return None
    try:
        return chat_template_file(model, None if template is None else Path(template).expanduser().absolute())
    except DataError as error:
        raise ConfigError(f"[data] chat_template: {error}") from None


def template_text(file: Path | None) -> str | None:
    """What is in the file of a chat template.

    Raises:
        ConfigError: it cannot be read or used.
    """
    try:
        return None if file is None else read_chat_template(file)
    except DataError as error:
        raise ConfigError(f"[data] {error}") from None


def _is_here(directory: Path) -> bool:
    try:
        return directory.is_dir()
    except OSError:  # a name that is too long, a link to itself
        return False
