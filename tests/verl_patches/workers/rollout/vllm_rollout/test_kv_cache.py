# SPDX-License-Identifier: Apache-2.0
"""The KV cache goes without a trace and returns on the scheduler's own configuration."""

from __future__ import annotations

import random
import weakref
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from verl.utils.device import get_torch_device
from vllm_ascend.attention.attention_v1 import AscendAttentionBackendImpl

from verl_patches.workers.rollout.vllm_rollout.kv_cache import (
    build_kv_cache,
    check_block_count,
    preserved_random_states,
    release_kv_cache,
)

BLOCKS = 5


class Engine:
    """A vLLM engine reduced to what holds the cache: two attention layers and an expert layer, MLA's tensor pairs."""

    def __init__(self, unfinished: int = 0, blocks: int = BLOCKS, seeds_everything: bool = True) -> None:
        self.runner = SimpleNamespace(kv_caches=[])
        layers = {
            "a0": SimpleNamespace(kv_cache=[None], impl=SimpleNamespace()),
            "moe": SimpleNamespace(),
            "a1": SimpleNamespace(kv_cache=[None], impl=SimpleNamespace()),
        }
        self.layers = layers
        self.runner.vllm_config = SimpleNamespace(compilation_config=SimpleNamespace(static_forward_context=layers))
        self.blocks, self.unfinished, self.seeds_everything = blocks, unfinished, seeds_everything
        self.configs: list[Any] = []
        executor = SimpleNamespace(
            driver_worker=SimpleNamespace(worker=SimpleNamespace(model_runner=self.runner)),
            initialize_from_config=self.initialize,
        )
        self.config = SimpleNamespace(num_blocks=BLOCKS)
        pool = SimpleNamespace(num_gpu_blocks=BLOCKS)
        scheduler = SimpleNamespace(
            kv_cache_config=self.config,
            kv_cache_manager=SimpleNamespace(block_pool=pool),
            get_num_unfinished_requests=lambda: self.unfinished,
        )
        self.core = SimpleNamespace(scheduler=scheduler, model_executor=executor)
        self.engine_core = SimpleNamespace(engine_core=self.core)
        self.initialize([self.config])

    def get_num_unfinished_requests(self) -> int:
        return self.unfinished

    def initialize(self, configs: list[Any]) -> None:
        assert self.runner.kv_caches == [], "vLLM refuses to bind to a list that is not empty"
        self.configs.append(configs[0])
        for layer in self.layers.values():
            if hasattr(layer, "kv_cache"):
                cache = (torch.zeros(self.blocks, 4), torch.zeros(self.blocks, 2))
                layer.kv_cache = [cache]
                self.runner.kv_caches.append(cache)
        if self.seeds_everything:
            random.seed(0), np.random.seed(0), torch.manual_seed(0), get_torch_device().manual_seed(0)


def test_every_reference_to_the_cache_goes() -> None:
    engine = Engine()
    tensors = [weakref.ref(tensor) for cache in engine.runner.kv_caches for tensor in cache]
    the_list = engine.runner.kv_caches
    release_kv_cache(engine)
    assert [tensor() for tensor in tensors] == [None] * 4
    assert engine.runner.kv_caches is the_list == []
    assert [cache.numel() for cache in engine.layers["a0"].kv_cache] == [0]


def test_grouped_query_attention_forgets_the_cache_that_it_began_with() -> None:
    """vLLM-Ascend's own class, which binds the halves of a cache at its first call."""
    implementation = object.__new__(AscendAttentionBackendImpl)
    engine = Engine()
    layer = engine.layers["a0"]
    implementation.key_cache, implementation.value_cache = layer.kv_cache[0]
    layer.impl = implementation
    held = weakref.ref(implementation.key_cache)
    release_kv_cache(engine)
    assert held() is implementation.key_cache is implementation.value_cache is None


def test_it_returns_on_the_schedulers_own_configuration() -> None:
    engine = Engine()
    release_kv_cache(engine)
    build_kv_cache(engine)
    assert engine.configs == [engine.config, engine.config] and engine.configs[1] is engine.config
    assert len(engine.runner.kv_caches) == 2


@pytest.mark.parametrize("blocks", [BLOCKS - 1, BLOCKS + 1])
def test_another_number_of_blocks_is_refused(blocks: int) -> None:
    engine = Engine()
    release_kv_cache(engine)
    engine.blocks = blocks
    with pytest.raises(RuntimeError, match=rf"\[{blocks}\] blocks per layer, the scheduler's configuration {BLOCKS}"):
        build_kv_cache(engine)


def test_a_pool_of_another_size_is_refused() -> None:
    engine = Engine()
    engine.core.scheduler.kv_cache_manager.block_pool.num_gpu_blocks = BLOCKS + 1
    with pytest.raises(RuntimeError, match=f"its pool {BLOCKS + 1}"):
        check_block_count(engine.core)


def test_unfinished_requests_refuse_the_release() -> None:
    engine = Engine(unfinished=3)
    with pytest.raises(RuntimeError, match="3 unfinished requests"):
        release_kv_cache(engine)
    assert engine.runner.kv_caches


def draw() -> list[float]:
    return [
        random.random(),
        float(np.random.rand()),
        float(torch.rand(())),
        float(torch.rand((), device="npu")),
    ]


def test_random_numbers_go_on_as_if_nothing_had_happened() -> None:
    engine = Engine()
    with preserved_random_states():
        expected = draw()
    release_kv_cache(engine)
    build_kv_cache(engine)
    assert draw() == expected


def test_random_states_are_restored_after_a_failure() -> None:
    with preserved_random_states():
        expected = draw()
    with pytest.raises(KeyError), preserved_random_states():
        torch.manual_seed(0)
        raise KeyError
    assert draw() == expected
