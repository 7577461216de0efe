# SPDX-License-Identifier: Apache-2.0
"""Giving back the KV cache of a vLLM engine and building it again, on the scheduler's own configuration.

The scheduler's block pool is sized once. A cache rebuilt from freshly profiled memory could hold fewer blocks than the
scheduler hands out, and writes would go out of bounds; so the configuration the scheduler was built from is used again.
"""

# NPU-ADAPTATION: the KV cache is released and rebuilt without sleep mode

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from verl.utils.device import get_torch_device


def release_kv_cache(llm_engine: Any) -> None:
    """Drop every reference to the cache tensors of `llm_engine` (a vLLM V1 `LLMEngine` with its engine core inside).

    Raises:
        RuntimeError: requests are unfinished; rebuilding the cache would forget their state.
    """
    core = llm_engine.engine_core.engine_core
    unfinished = max(llm_engine.get_num_unfinished_requests(), core.scheduler.get_num_unfinished_requests())
    if unfinished:
        raise RuntimeError(
            f"cannot release the KV cache with {unfinished} unfinished requests: finish or abort them first"
        )
    runner = _runner(core)
    for layer in runner.vllm_config.compilation_config.static_forward_context.values():
        # Expert layers are registered there too; only attention layers have a cache.
        if hasattr(layer, "kv_cache"):
            layer.kv_cache = [torch.empty(0) for _ in layer.kv_cache]
            _forget_first_cache(layer.impl)
    runner.kv_caches.clear()


def _forget_first_cache(implementation: Any) -> None:
    """vLLM-Ascend's grouped-query attention keeps the two halves of the first cache it is called with, for good.

    It would go on with that one, beside the cache that is built anew.
    """
    if hasattr(implementation, "key_cache"):
        implementation.key_cache = implementation.value_cache = None


def build_kv_cache(llm_engine: Any) -> None:
    """Allocate the cache anew and let the engine warm up (graph mode captures here), leaving all random states alone.

    Collective over the engine's data-parallel domain in graph mode, so every rank must call it.

    Raises:
        RuntimeError: the new cache has another number of blocks than the scheduler.
    """
    core = llm_engine.engine_core.engine_core
    config = core.scheduler.kv_cache_config
    with preserved_random_states():
        core.model_executor.initialize_from_config([config])
    check_block_count(core)


def check_block_count(core: Any) -> None:
    """Raise RuntimeError unless every layer's cache holds exactly the blocks the scheduler's pool hands out."""
    pool = core.scheduler.kv_cache_manager.block_pool.num_gpu_blocks
    planned = core.scheduler.kv_cache_config.num_blocks
    counts = sorted({int(_first_tensor(cache).shape[0]) for cache in _runner(core).kv_caches})
    if counts != [planned] or pool != planned:
        raise RuntimeError(
            f"the KV cache has {counts} blocks per layer, the scheduler's configuration {planned}, its pool {pool}: "
            "they must be one number, or block ids point outside the cache"
        )


@contextmanager
def preserved_random_states() -> Iterator[None]:
    """Restore Python's, NumPy's and PyTorch's (host and current device) generators at the end of the block.

    vLLM seeds all of them with the engine's seed after each warm-up; in a process that also trains, that would repeat
    the same random numbers at every step.
    """
    device = get_torch_device()
    python, numpy, host, accelerator = (
        random.getstate(),
        np.random.get_state(),
        torch.get_rng_state(),
        device.get_rng_state(),
    )
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(host)
        device.set_rng_state(accelerator)


def _runner(core: Any) -> Any:
    return core.model_executor.driver_worker.worker.model_runner


def _first_tensor(cache: Any) -> torch.Tensor:
    """MLA keeps (compressed, rotary) tensors per layer, plain attention [keys, values] or one tensor."""
    while not isinstance(cache, torch.Tensor):
        cache = cache[0]
    return cache
