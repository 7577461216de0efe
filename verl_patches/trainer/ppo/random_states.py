# SPDX-License-Identifier: Apache-2.0
"""The random states of the trainer's process in a checkpoint. The position in the data is in verl's own `data.pt`."""

# NPU-ADAPTATION: checkpoints hold the trainer's generators

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch

from verl_patches.random_states import (
    DIRECTORY,
    UNUSABLE,
    damaged,
    host_states,
    read_states,
    set_host_states,
    write_states,
)
from verl_patches.trainer.ppo.checkpoint_manifest import checkpoint_of

FILE = "trainer.json"
logger = logging.getLogger(__name__)


def save_trainer(checkpoint: Path) -> None:
    """Write the states of this process's generators into `checkpoint`, a directory `global_step_N`."""
    write_states(checkpoint / DIRECTORY / FILE, host_states())


def load_trainer(checkpoint: Path) -> None:
    """Set this process's generators to what `save_trainer` wrote; a checkpoint without states is said to have none.

    Raises:
        RandomStatesError: the checkpoint has states, and these cannot be used.
    """
    if not (checkpoint / DIRECTORY).is_dir():
        logger.warning("%s holds no random states: the trainer's generators go on as they are", checkpoint)
        return
    path = checkpoint / DIRECTORY / FILE
    states = read_states(path)
    try:
        set_host_states(states)
    except UNUSABLE as error:
        raise damaged(path, error) from error


def own_generator(data_loader: Any) -> None:
    """Let a DataLoader draw the seed of each pass from a generator of its own.

    A resumed run begins a pass where the first was in the middle of one; drawing from the process's generator would
    shift all later draws.
    """
    data_loader.generator = torch.Generator()


def resumed_from(trainer: Any) -> Path | None:
    """The checkpoint that a RayPPOTrainer has been loaded from; None for one that begins."""
    if not trainer.global_steps:
        return None
    settings = trainer.config.trainer
    if settings.resume_mode == "resume_path":
        return Path(settings.resume_from_path).absolute()
    return checkpoint_of(trainer)
