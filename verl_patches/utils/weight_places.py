# SPDX-License-Identifier: Apache-2.0
"""Where a model's weights are between the phases of a step: on the die, or in host memory that is kept for them.

verl offloads the actor at the end of every phase, the update too, although the weight sync that comes next loads it
again. Within `weights_staying` an offload frees the gradients alone. Nobody remembers which it was: verl's loads copy
only what is not on the die, so that whatever comes first, a sync, a save or a pass, finds the weights.
"""

# NPU-ADAPTATION: the actor's weights stay on the die from the update to the weight sync, and have one place on the host

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch

from recipe.overlay import Condition

OPTION = "RECIPE_KEEP_UNTIL_SYNC"
_staying: ContextVar[bool] = ContextVar("weights_staying", default=False)


def asked_for() -> bool:
    """Whether the run keeps the weights on the die until the sync."""
    return os.environ.get(OPTION, "0") == "1"


kept_until_sync = Condition(asked_for, otherwise="actor.keep_until_sync is false: verl's own order of offloads")


@contextmanager
def weights_staying(stay: bool = True) -> Iterator[None]:
    """Within the block, an offload of a model leaves its weights on the die, if `stay`."""
    token = _staying.set(stay)
    try:
        yield
    finally:
        _staying.reset(token)


def weights_stay() -> bool:
    """Whether an offload now leaves the weights on the die."""
    return _staying.get()


def weights_on_die(models: Iterable[Any]) -> bool:
    """Whether all weights of these models, one for each virtual stage, are there: they have device memory.

    Args:
        models: Megatron-core's `DistributedDataParallel`.
    """
    return all(buffer.param_data.untyped_storage().size() > 0 for model in models for buffer in _buffers(model))


def free_gradients(models: Iterable[Any]) -> None:
    """Give back the gradients' memory; verl's load makes them anew, as zeros."""
    for model in models:
        for buffer in _buffers(model):
            storage = buffer.grad_data.storage()
            if storage.size() > 0:
                buffer.grad_data_size = storage.size()
                storage.resize_(0)


@torch.no_grad()
def weights_to_host(models: Iterable[Any]) -> None:
    """Copy what is on the die to its place in page-locked memory, and give the device memory back.

    The place is made at a model's first offload and kept as `cpu_data`, where verl's load looks for it, also while the
    weights are on the die. Then it is out of date; every offload writes all of it.

    Args:
        models: wrapped for training by Megatron-core, or plain as the reference.
    """
    for model in models:
        if hasattr(model, "expert_parallel_buffers"):
            for buffer in _buffers(model):
                storage = buffer.param_data.storage()
                if storage.size() > 0:
                    _to_host(buffer.param_data, buffer.param_data)
                    buffer.param_data_size = storage.size()
                    storage.resize_(0)
        else:
            for parameter in model.parameters():
                if not parameter.is_cpu:
                    parameter.data = _to_host(parameter.data, parameter)


def _buffers(model: Any) -> Iterator[Any]:
    yield from model.buffers
    yield from model.expert_parallel_buffers


def _to_host(values: torch.Tensor, owner: Any) -> torch.Tensor:
    """`values` in the page-locked tensor that `owner` has for them. It is waited for: their memory may be reused."""
    place = getattr(owner, "cpu_data", None)
    if place is None or (place.shape, place.dtype) != (values.shape, values.dtype):
        place = owner.cpu_data = torch.empty(values.shape, dtype=values.dtype, device="cpu", pin_memory=True)
    place.copy_(values)
    return place
