# SPDX-License-Identifier: Apache-2.0
"""The metrics: true epochs; in the JSON-lines file any scalar; there and in TensorBoard's as soon as a step is done.

With a step's line its checkpoint is declared whole, if it has one.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from recipe.overlay import patch
from verl_patches.trainer.ppo.epochs import with_epoch


@patch(
    "verl.utils.tracking:FileLogger.__init__",
    why="it empties the metrics file of a run that goes on from a checkpoint",
    upstream="verl==0.6.1",
    fingerprint="sha256:35ce0874956fd5f7f9c2472f0d103b9b2f227cb60acc80c497f866f2b2a45479",
    remove_when="FileLogger opens its file for appending",
)
def __init__(original: Callable[..., None], self: Any, project_name: str, experiment_name: str) -> None:
    path = os.environ.get("VERL_FILE_LOGGER_PATH")
    if not path or not os.path.isfile(path):
        original(self, project_name, experiment_name)
        return
    # NPU-ADAPTATION: what the file holds is kept
    self.project_name, self.experiment_name, self.filepath = project_name, experiment_name, path
    self.fp = open(path, "a")  # noqa: SIM115


@patch(
    "verl.utils.tracking:FileLogger.log",
    why="the JSON encoder knows no tensors, and verl's correlation metric is one: the first training step fails; and "
    "what is written stays in the buffer, so that progress cannot be followed",
    upstream="verl==0.6.1",
    fingerprint="sha256:311844c14fc0d8fea5f322856c8d2a58ca31f20f4b44909141575cd4ade63ff3",
    remove_when="FileLogger converts its values and flushes",
)
def log(original: Callable[..., None], self: Any, data: dict[str, Any], step: int) -> None:
    # NPU-ADAPTATION: tensors and NumPy values become plain numbers, and the line is flushed
    original(self, {name: plain(value) for name, value in data.items()}, step)
    self.fp.flush()


@patch(
    "verl.utils.tracking:_TensorboardAdapter.log",
    why="events wait in the process for up to two minutes: the last steps of a run that is killed are in no event file",
    upstream="verl==0.6.1",
    fingerprint="sha256:48148a1eb587ed0ffd00ec3bd420752e4a74bc3c18deee28e5faaee294cb9d93",
    remove_when="_TensorboardAdapter flushes what it has written",
)
def tensorboard_log(original: Callable[..., None], self: Any, data: dict[str, Any], step: int) -> None:
    original(self, data, step)
    self.writer.flush()  # NPU-ADAPTATION: a step's events are in the file before the next step begins


@patch(
    "verl.utils.tracking:Tracking.log",
    why="a step is saved before its metrics are logged: a run that is killed between the two and goes on from there "
    "never has them; and the trainer counts epochs from the start of its process: after a resume training/epoch begins "
    "at 0 again",
    upstream="verl==0.6.1",
    fingerprint="sha256:335bf47d9d18363ebba95218495cee04acadadd4f4659822705cfce00da661bc",
    remove_when="verl's trainer logs a step's metrics before it saves the step, and counts epochs from the step",
)
def tracking_log(
    original: Callable[..., None], self: Any, data: dict[str, Any], step: int, *args: Any, **kwargs: Any
) -> None:
    from verl_patches.trainer.ppo.checkpoint_manifest import declare

    # NPU-ADAPTATION: the epoch follows from the step; and only now the checkpoint of this step counts as whole
    original(self, with_epoch(data, step), step, *args, **kwargs)
    file = self.logger.get("file")
    declare(None if file is None else file.fp.fileno())


def plain(value: Any) -> Any:
    """`value` with tensors, NumPy arrays and NumPy scalars as numbers or lists of numbers."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
    return value.tolist() if hasattr(value, "tolist") else value
