# SPDX-License-Identifier: Apache-2.0
"""Saves a checkpoint in a rank's process, and counts the host memory that it takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from megatron.core.dist_checkpointing.strategies.filesystem_async import FileSystemWriterAsync
from torch_npu import _sim

from recipe.plan.saving import FROM_DIES, FROM_HOST


def save(actor: Any, directory: Path) -> dict[str, int]:
    """Saves a checkpoint as verl's trainer asks for it, and reads the host memory while it is written.

    Returns:
        bytes of the copies that are made for the writers, by the names of the plan, and of page-locked memory more
        than before.
    """
    counted = {FROM_DIES: 0, FROM_HOST: 0, "pinned": -_sim.pinned_bytes()}
    prepare, preload = FileSystemWriterAsync.prepare_write_data, FileSystemWriterAsync.preload_tensors
    clone = torch.Tensor.clone

    def counting_clone(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        made = clone(tensor, *args, **kwargs)
        counted[FROM_HOST] += made.nbytes if made.is_cpu else 0
        return made

    def prepare_write_data(self: Any, *args: Any) -> None:
        torch.Tensor.clone = counting_clone
        try:
            prepare(self, *args)
        finally:
            torch.Tensor.clone = clone

    def preload_tensors(buckets: Any, *args: Any) -> Any:
        loaded = preload(buckets, *args)
        counted["pinned"] += _sim.pinned_bytes()
        for (_, _, (_, tensors)), (_, _, (_, copies)) in zip(buckets, loaded, strict=True):
            for (_, tensor), (_, copy) in zip(tensors, copies, strict=True):
                if copy is not tensor:
                    counted[FROM_HOST if tensor.is_cpu else FROM_DIES] += copy.nbytes
        return loaded

    FileSystemWriterAsync.prepare_write_data = prepare_write_data
    FileSystemWriterAsync.preload_tensors = staticmethod(preload_tensors)
    actor.save_checkpoint(str(directory / "global_step_2" / "actor"), global_step=2)
    return counted
