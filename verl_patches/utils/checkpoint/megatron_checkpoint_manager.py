# SPDX-License-Identifier: Apache-2.0
"""A checkpoint can be loaded without Transformer Engine, as on every NPU, in another layout, and with its schedule."""

from __future__ import annotations

import contextlib
import importlib.machinery
import sys
from collections.abc import Callable, Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch.distributed.checkpoint import FileSystemReader
from verl.utils.megatron_utils import get_dist_checkpoint_path

from recipe.overlay import patch

NAME = "transformer_engine"


def _installed() -> bool:
    """Whether the real Transformer Engine is installed: MindSpeed's substitute cannot be found on the import path."""
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


@contextlib.contextmanager
def _without_random_state(manager: Any, path: str) -> Iterator[None]:
    """While the block runs `manager` does not load the random state, if the one in the checkpoint is of another layout.

    verl saves one for each pipeline and tensor parallel rank, named after their numbers.
    """
    before = manager.checkpoint_load_contents
    directory = get_dist_checkpoint_path(path)
    saved = [name for name in FileSystemReader(directory).read_metadata().state_dict_metadata if _is_random(name)]
    if manager.should_load_extra and saved and manager.get_rng_state().unique_key not in saved:
        manager.checkpoint_load_contents = [part for part in before if part != "extra"]
    try:
        yield
    finally:
        manager.checkpoint_load_contents = before


def _is_random(name: str) -> bool:
    return name.startswith("rng_state/")


@contextlib.contextmanager
def _with_schedule(manager: Any) -> Iterator[None]:
    """While the block runs, `manager` also loads the position in the learning rate's schedule.

    verl's setting of that name would also keep the saved learning rate against the configuration's; the schedule itself
    was made without it, so its rates stay those of the configuration.
    """
    before = manager.use_checkpoint_opt_param_scheduler
    manager.use_checkpoint_opt_param_scheduler = before or manager.lr_scheduler is not None
    try:
        yield
    finally:
        manager.use_checkpoint_opt_param_scheduler = before


@patch(
    "verl.utils.checkpoint.megatron_checkpoint_manager:MegatronCheckpointManager.load_checkpoint",
    why="it imports Transformer Engine, which no NPU has, to name its Adam as a class that a checkpoint may contain: "
    "what a run has saved cannot be loaded, neither with MindSpeed nor without it; it stops where the pipeline or "
    "tensor parallel size is another, as the random states have other names then; and it starts the learning rate's "
    "warm-up again",
    upstream="verl==0.6.1",
    fingerprint="sha256:42ef9237f622a7d492c02b9f6e50efc0156c4c1ef4d0796a2c07e23d2524fc38",
    remove_when="verl imports Transformer Engine for this only where it is installed, loads a checkpoint of another "
    "layout, and keeps the place in the learning rate's schedule",
)
def load_checkpoint(original: Callable[..., None], self: Any, local_path: str, *args: Any, **kwargs: Any) -> None:
    """Load model, optimizer and random state from a directory that save_checkpoint has written."""
    # NPU-ADAPTATION: another layout's random states are left out, and the schedule goes on where it was
    with _without_random_state(self, local_path), _with_schedule(self), contextlib.ExitStack() as stack:
        if not _installed():
            stack.enter_context(_optimizer_class_to_allow())  # NPU-ADAPTATION: only the class's place is needed
        original(self, local_path, *args, **kwargs)
