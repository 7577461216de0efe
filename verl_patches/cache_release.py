# SPDX-License-Identifier: Apache-2.0
"""How cached device memory is given back: to the device where others than torch need it, else by a light way.

The light way is `torch.npu.empty_virt_addr_cache`, which torch_npu has from 2.6 on and 2.5.1 has not: it takes the
addresses of what is free, but keeps the physical memory for this process's next tensors, whatever their sizes. Giving
that back is what takes the time (torch_npu v2.7.1, `NPUCachingAllocator.cpp`: `aclrtFreePhysical` for each piece). It
is an error without expandable segments.

HCCL takes memory of its own for a process group at its first collective, and does not ask torch to give any back for
that. So a process's first step, in which all groups come into use, releases in full.
"""

# NPU-ADAPTATION: between phases, cached memory is given back by torch_npu's light way where there is one

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from verl.utils import memory_utils
from verl.utils.device import get_torch_device

from verl_patches.utils.weight_places import asked_for

# Free parts of pieces that are in use: no pass gives them back.
LITTLE_BYTES = 16 * 2**20
_full: ContextVar[Callable[[], None] | None] = ContextVar("full_release", default=None)
_first_step_over = False


def first_step_is_over() -> None:
    """Every process group has been used."""
    global _first_step_over
    _first_step_over = True


def light_release() -> Callable[[], None] | None:
    """torch_npu's function, where it is there, works, and the run wants it; not in a process's first step."""
    expandable = "expandable_segments:True" in os.environ.get("PYTORCH_NPU_ALLOC_CONF", "")
    light: Callable[[], None] | None = getattr(get_torch_device(), "empty_virt_addr_cache", None)
    return light if expandable and asked_for() and _first_step_over else None


@contextmanager
def light_releases() -> Iterator[None]:
    """Within the block, what empties the device's cache does it by the light way, where there is one."""
    light = light_release()
    if light is None or _full.get() is not None:
        yield
        return
    device = get_torch_device()
    token = _full.set(device.empty_cache)
    device.empty_cache = light
    try:
        yield
    finally:
        device.empty_cache = _full.get()
        _full.reset(token)


def release_to_device() -> None:
    """Give the device all that is cached, also what light releases have kept; nothing where that has just been done."""
    device, full = get_torch_device(), _full.get()
    if full is None:
        if device.memory_reserved() - device.memory_allocated() >= LITTLE_BYTES:
            memory_utils.aggressive_empty_cache(max_retries=3)
        return
    light, device.empty_cache = device.empty_cache, full
    try:
        memory_utils.aggressive_empty_cache()
    finally:
        device.empty_cache = light
