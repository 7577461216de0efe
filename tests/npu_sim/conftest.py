# SPDX-License-Identifier: Apache-2.0
"""Fresh processes for tests of what happens once per process, and a clean device for those that measure memory."""

import gc
import os
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
import torch
import torch_npu

RunPython = Callable[..., subprocess.CompletedProcess]


@pytest.fixture
def run_python() -> RunPython:
    """run_python(code, **environment) → the finished process (text streams); None removes a variable."""

    def run(code: str, *arguments: str, **environment: str | None) -> subprocess.CompletedProcess:
        merged = {**os.environ, **{key: value for key, value in environment.items() if value is not None}}
        for key, value in environment.items():
            if value is None:
                merged.pop(key, None)
        return subprocess.run(
            [sys.executable, "-c", code, *arguments], env=merged, capture_output=True, text=True, timeout=120
        )

    return run


@pytest.fixture
def quiet_device() -> Iterator[int]:
    """Index of a device no test leaves tensors on, with its cache emptied and its peak reset."""
    gc.collect()
    torch.npu.empty_cache()
    device = 5
    assert torch.npu.memory_allocated(device) == 0, torch_npu.sim.live_blocks(device)
    torch.npu.reset_peak_memory_stats(device)
    with torch.npu.device(device):
        yield device
    gc.collect()
    torch.npu.empty_cache()


@pytest.fixture
def small_hbm(quiet_device: int) -> Iterator[int]:
    """A quiet device of 64 MiB; yields that size."""
    before = torch.npu.mem_get_info(quiet_device)[1]
    torch_npu.sim.set_hbm_bytes(64 << 20)
    yield 64 << 20
    torch_npu.sim.set_hbm_bytes(before)
