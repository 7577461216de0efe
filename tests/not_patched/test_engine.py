# SPDX-License-Identifier: Apache-2.0
"""What vLLM at our pin does already, and other recipes patch: the scheduler and the worker have one cache layout."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from vllm.distributed import parallel_state
from vllm.v1.core.kv_cache_utils import FullAttentionSpec
from vllm.v1.engine.core import EngineCore
from vllm.v1.executor import abstract

MIB = 1 << 20


def test_the_scheduler_has_the_very_configuration_the_worker_was_initialised_with() -> None:
    """It can be used again after the cache was given back, whatever memory is free by then."""
    spec = FullAttentionSpec(block_size=16, num_kv_heads=1, head_size=576, dtype=torch.bfloat16, use_mla=True)
    given: list[Any] = []
    core = SimpleNamespace(
        model_executor=SimpleNamespace(
            get_kv_cache_specs=lambda: [{f"layers.{layer}.attn": spec for layer in range(3)}],
            determine_available_memory=lambda: [4 * MIB],
            initialize_from_config=given.extend,
        )
    )
    config = SimpleNamespace(
        model_config=SimpleNamespace(max_model_len=64, use_mla=True),
        cache_config=SimpleNamespace(block_size=16, num_gpu_blocks_override=None),
        scheduler_config=SimpleNamespace(disable_hybrid_kv_cache_manager=False),
    )
    blocks, _, of_scheduler = EngineCore._initialize_kv_caches(core, config)
    assert len(given) == 1 and given[0] is of_scheduler
    assert of_scheduler.num_blocks == blocks > 0


@pytest.mark.parametrize("other", [3, 9])
def test_all_ranks_take_the_smallest_cache(monkeypatch: pytest.MonkeyPatch, other: int) -> None:
    def all_reduce(memory: torch.Tensor, group: Any, op: Any) -> None:
        assert op == torch.distributed.ReduceOp.MIN and group == "world's hosts"
        memory.clamp_(max=other)

    world = SimpleNamespace(cpu_group="world's hosts")
    monkeypatch.setattr(parallel_state, "get_world_group", lambda: world)
    monkeypatch.setattr(torch.distributed, "all_reduce", all_reduce)
    monkeypatch.setattr(abstract.Executor, "determine_available_memory", lambda self: [5])
    executor = abstract.ExecutorWithExternalLauncher.__new__(abstract.ExecutorWithExternalLauncher)
    assert executor.determine_available_memory() == [min(5, other)]
