# SPDX-License-Identifier: Apache-2.0
"""One pass over the device's cache returns everything that is free, by the device's own counters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from verl.utils import memory_utils
from verl.workers import megatron_workers

ID = "verl_patches.utils.memory_utils:aggressive_empty_cache"
GIB = 1 << 30


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The bytes that the device's allocator held after each time its cache was emptied."""
    held: list[int] = []
    empty: Callable[[], None] = torch.npu.empty_cache

    def noted() -> None:
        empty()
        held.append(torch.npu.memory_reserved())

    monkeypatch.setattr(torch.npu, "empty_cache", noted)
    return held


@pytest.fixture
def garbage() -> Iterator[Callable[[], None]]:
    """Leaves 2 GiB of device memory in a cycle that only the garbage collector can find, and 2 GiB free but cached."""
    memory_utils.aggressive_empty_cache(max_retries=3)

    def leave() -> None:
        cycle: list[Any] = [torch.empty(2 * GIB, dtype=torch.uint8, device="npu")]
        cycle.append(cycle)
        torch.empty(2 * GIB, dtype=torch.uint8, device="npu")

    yield leave
    memory_utils.aggressive_empty_cache(max_retries=3)


@pytest.mark.proves(ID)
@pytest.mark.parametrize("module", [memory_utils, megatron_workers])
def test_one_pass_returns_everything(passes: list[int], garbage: Callable[[], None], module: Any) -> None:
    passes.clear()
    allocated, reserved = torch.npu.memory_allocated(), torch.npu.memory_reserved()
    garbage()
    assert torch.npu.memory_allocated() >= allocated + 2 * GIB
    assert torch.npu.memory_reserved() >= reserved + 4 * GIB
    module.aggressive_empty_cache(force_sync=True)
    assert (torch.npu.memory_allocated(), passes) == (allocated, [reserved])


def test_a_caller_can_ask_for_more(passes: list[int], garbage: Callable[[], None]) -> None:
    passes.clear()
    garbage()
    memory_utils.aggressive_empty_cache(max_retries=3)
    assert len(passes) == 2, "verl's own rule: another pass after one that returned 1 GiB"
