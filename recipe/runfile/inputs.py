# SPDX-License-Identifier: Apache-2.0
"""What a run on a cluster reads: made before it, and named in the run file. For simulated runs, stand-ins to show."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recipe.data.chat_template import can_be_seen, chat_template_file, read_chat_template
from recipe.data.records import DataError
from recipe.runfile import mindspeed
from recipe.runfile.architecture import KNOWN, Architecture, from_config_json
from recipe.runfile.errors import ConfigError
from recipe.runfile.overrides import Inputs
from recipe.runfile.paths import upstream_dir
from recipe.runfile.schema import RunConfig
from recipe.weights.model_config import transformer_overrides

# Stands for what is made when the run starts.
MADE_AT_LAUNCH = Path("/made/at/launch")


def given_inputs(config: RunConfig) -> Inputs:
    """The inputs as far as the run file tells; nothing is made, and only config.json and the chat template are read.

    What a simulated run makes at launch is named below `MADE_AT_LAUNCH`, and its prompts are taken to be as long as
    they may be.

    Raises:
        ConfigError: config.json or the chat template is there and cannot be used, or MindSpeed refuses the run.
    """
    model, data = config.model, config.data
    tokenizer = _path(model.path, "model")
    template = chat_template(config, tokenizer) if data.chat_template or can_be_seen(tokenizer) else None
    checkpoint = None if model.kind == "random_init" else _path(model.checkpoint, "torch_dist")
    return Inputs(
        model=tokenizer,
        checkpoint=checkpoint,
        train=_path(data.train_path, "train.parquet"),
        validation=_path(data.validation_path, "validation.parquet"),
        prompt_tokens=data.max_prompt_tokens,
        transformer=model_overrides(config) | mindspeed.overrides(config, upstream_dir(), lambda line: None),
        chat_template=template_text(template),
    )


def chat_template(config: RunConfig, model: Path) -> Path | None:
    """The file with the chat template that prompts are rendered with; None: the tokenizer in `model` has its own.

    Raises:
        ConfigError: the run file's is not there, or tokenizer_config.json cannot be read.
    """
    given = config.data.chat_template
    try:
        return chat_template_file(model, None if given is None else _path(given, ""))
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


def _path(given: str | None, made: str) -> Path:
    return MADE_AT_LAUNCH / made if given is None else Path(given).expanduser().absolute()


def config_json(config: RunConfig) -> Mapping[str, Any] | None:
    """The model's config.json; None where it cannot be seen.

    Raises:
        ConfigError: it is not JSON.
    """
    if config.model.path is None:
        return None
    path = _path(config.model.path, "model") / "config.json"
    try:
        values: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise ConfigError(f"{path}: cannot be read as JSON ({error})") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: holds no JSON object; expected a Hugging Face config.json")
    return values


def architecture(config: RunConfig) -> Architecture | None:
    """The sizes of the model: from its config.json, else those that [model] architecture names; None: not known.

    Raises:
        ConfigError: config.json cannot be used, or is of another architecture than the run file's.
    """
    named = KNOWN.get(config.model.architecture or "")
    values = config_json(config)
    if values is None:
        return named
    try:
        seen = from_config_json(values)
    except ValueError as error:
        raise ConfigError(f"{config.model.path}: {error}") from None
    if named is not None and seen != named:
        differing = [name for name, value in vars(named).items() if vars(seen)[name] != value]
        raise ConfigError(
            f"{config.model.path}: config.json differs from [model] architecture = {config.model.architecture!r} in "
            f"{', '.join(differing)}; correct one of them"
        )
    return seen


def model_overrides(config: RunConfig) -> dict[str, Any]:
    """What Megatron-core must be told about the model beside verl's own conversion of its config.

    Raises:
        ConfigError: config.json cannot be used.
    """
    values = config_json(config)
    if values is not None:
        try:
            return transformer_overrides(dict(values))
        except (ValueError, KeyError) as error:
            raise ConfigError(f"{config.model.path}: {error}") from None
    sizes = architecture(config)
    if sizes is None or sizes.expert_groups == 1:
        return {}
    return {"moe_router_num_groups": sizes.expert_groups, "moe_router_group_topk": sizes.expert_groups_kept}
