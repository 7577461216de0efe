# SPDX-License-Identifier: Apache-2.0
"""What a run reads, and where that is: as the run file names it, or as a launch has made it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from recipe.runfile.schema import RunConfig

# Stands for what is made when the run starts.
MADE_AT_LAUNCH = Path("/made/at/launch")


@dataclass(frozen=True)
class Inputs:
    """What a run reads. Paths are absolute; `prompt_tokens` is the padded prompt length.

    `checkpoint` None: the weights are random.
    """

    model: Path
    checkpoint: Path | None
    train: Path
    validation: Path
    prompt_tokens: int


def given_inputs(config: RunConfig) -> Inputs:
    """The inputs as far as the run file names them; nothing is made, and nothing looked at.

    What a simulated run makes at launch is named below `MADE_AT_LAUNCH`, and its prompts are taken to be as long as
    they may be.
    """
    model, data = config.model, config.data
    return Inputs(
        model=_path(model.path, "model"),
        checkpoint=None if model.kind == "random_init" else _path(model.checkpoint, "torch_dist"),
        train=_path(data.train_path, "train.parquet"),
        validation=_path(data.validation_path, "validation.parquet"),
        prompt_tokens=data.max_prompt_tokens,
    )


def _path(path: str | None, made: str) -> Path:
    return MADE_AT_LAUNCH / made if path is None else Path(path).expanduser().absolute()
