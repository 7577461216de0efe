# SPDX-License-Identifier: Apache-2.0
"""The directory that stands for the run's model: its config.json and a tokenizer, and no weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from recipe.files import write_atomically
from recipe.models.published import CONFIGS
from recipe.runfile.derive import derive_run
from recipe.runfile.errors import ConfigError
from recipe.runfile.schema import RunConfig
from recipe.tiny.tokenizer import save_tokenizer
from recipe.weights.hf_directory import dtype_of, plain_fields


def make_model(config: RunConfig, directory: Path) -> None:
    """Make the directory, unless it is there.

    The tokenizer is the tiny model's: nothing is rendered, and its tokens are among those of every model.

    Raises:
        ConfigError: the sizes of the model are not known.
    """
    directory.mkdir(parents=True, exist_ok=True)
    write_atomically(directory / "config.json", json.dumps(config_json(config), indent=2))
    if not (directory / "tokenizer_config.json").is_file():
        save_tokenizer(directory)


def config_json(config: RunConfig) -> dict[str, Any]:
    """The run's config.json: the model's own where it can be seen, else that of the architecture that it names, as a
    converter would write it.

    Raises:
        ConfigError: neither is there.
    """
    given = config.model.path
    values = derive_run(config).model_config
    values = CONFIGS.get(config.model.architecture or "") if values is None else values
    if values is None:
        raise ConfigError(f"[model] path: {given} has no config.json here, and no [model] architecture names the sizes")
    return plain_fields(values, dtype_of(values))
