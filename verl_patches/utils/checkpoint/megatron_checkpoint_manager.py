# SPDX-License-Identifier: Apache-2.0
"""A checkpoint can be loaded where Transformer Engine is not installed, as on every NPU, and its schedule goes on."""

from __future__ import annotations

import contextlib
import importlib.machinery
import sys
from collections.abc import Callable, Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import torch

from recipe.overlay import patch

NAME = "transformer_engine"


def _installed() -> bool:
    """Whether the real package is there. What MindSpeed puts in its place cannot be found on the import path."""
    return importlib.machinery.PathFinder.find_spec(NAME) is not None


@contextlib.contextmanager
def _optimizer_class_to_allow() -> Iterator[None]:
    """While the block runs, `import transformer_engine` gives a module that only knows where FusedAdam would be.

    It stands for torch's AdamW, which is on the same list of classes that a checkpoint may name. The stand-in is no
    package: whoever looks for more of Transformer Engine finds that it is not installed.
    """
    module = ModuleType(NAME)
    adam = SimpleNamespace(fused_adam=SimpleNamespace(FusedAdam=torch.optim.AdamW))
    module.pytorch = SimpleNamespace(optimizers=adam)  # type: ignore[attr-defined]  # a stand-in
    before = sys.modules.get(NAME)
    sys.modules[NAME] = module
    try:
        yield
    finally:
        if before is None:
            del sys.modules[NAME]
        else:
            sys.modules[NAME] = before


@patch(
    "verl.utils.checkpoint.megatron_checkpoint_manager:MegatronCheckpointManager.load_checkpoint",
    why="it imports Transformer Engine, which no NPU has, to name its Adam as a class that a checkpoint may contain: "
    "what a run has saved cannot be loaded, neither with MindSpeed nor without it; and the learning rate's schedule is "
    "saved but begins anew, so that the second step after a resume warms up again",
    upstream="verl==0.6.1",
    fingerprint="sha256:42ef9237f622a7d492c02b9f6e50efc0156c4c1ef4d0796a2c07e23d2524fc38",
    remove_when="verl imports Transformer Engine for this only where it is installed, and loads the schedule",
)
def load_checkpoint(original: Callable[..., None], self: Any, *args: Any, **kwargs: Any) -> None:
    """Load model, optimizer, schedule and random state from a directory that save_checkpoint has written."""
    # NPU-ADAPTATION: the number of steps is the checkpoint's; rate, warm-up and decay stay those of this run's
    # configuration, because verl builds the schedule to keep its own values unless told otherwise.
    self.use_checkpoint_opt_param_scheduler = self.lr_scheduler is not None
    if _installed():
        return original(self, *args, **kwargs)
    with _optimizer_class_to_allow():  # NPU-ADAPTATION: only the class's place is needed
        return original(self, *args, **kwargs)
