# SPDX-License-Identifier: Apache-2.0
"""Device memory of this process: what one owner holds, and one event line per phase of a step."""

# NPU-ADAPTATION: each phase of a step reports its device memory

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from verl.utils.device import get_torch_device

from recipe.recorder import record


class MemoryLedger:
    """Bytes held on the current device by one owner, summed over the blocks in which only that owner allocates."""

    def __init__(self) -> None:
        self.held = 0
        self._depth = 0

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Add what the allocator's counter gains or loses within the block. Blocks nest; the outermost counts."""
        self._depth += 1
        before = allocated_bytes()
        try:
            yield
        finally:
            self._depth -= 1
            if self._depth == 0:
                self.held += allocated_bytes() - before


def allocated_bytes() -> int:
    """Bytes of live tensors on the current device; 0 without a device."""
    device = get_torch_device()
    return int(device.memory_allocated()) if device.is_available() else 0


def record_memory(phase: str, **fields: int) -> None:
    """Record the device's and the process's memory, in bytes, at the end of `phase` of a step."""
    if not os.environ.get("RECIPE_RUN_DIR"):
        return
    device = get_torch_device()
    present = device.is_available()
    record(
        "memory",
        phase=phase,
        allocated=allocated_bytes(),
        reserved=int(device.memory_reserved()) if present else 0,
        peak=int(device.max_memory_allocated()) if present else 0,
        rss=resident_bytes(),
        **fields,
    )


def resident_bytes() -> int:
    """Resident set size of this process in bytes."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
