# SPDX-License-Identifier: Apache-2.0
"""What a run reads, and where that is: as the run file names it, or as a launch has made it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from recipe.runfile.schema import RunConfig

# Stands for the directory of what is made at launch.
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
    """The inputs that the run file names; no file is made or read.

    What a simulated run makes at launch has a path below `MADE_AT_LAUNCH`; its prompts are assumed to be as long as
    allowed.
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
