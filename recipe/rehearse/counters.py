# SPDX-License-Identifier: Apache-2.0
"""A simulated device's byte counters, read at the points of a step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch_npu import _sim

BUILD = "build"


class Reading(NamedTuple):
    """Bytes on the device at a point of a phase (`allocated`), the most since the reading before (`peak`), page-locked
    bytes of host memory, and bytes on the device by what they are, where that is known."""

    phase: str
    point: str
    allocated: int
    peak: int
    pinned: int
    contents: Mapping[str, int]


class Counters:
    """Readings in their order, those of a phase from when it began last.

    Args:
        contents: tells the bytes on the device by what they are.
    """

    def __init__(self, contents: Callable[[], Mapping[str, int]] | None = None) -> None:
        self.phase = BUILD
        self.readings: list[Reading] = []
        self._contents = contents

    def read(self, point: str) -> None:
        """Keep a reading of this point."""
        contents = {} if self._contents is None else dict(self._contents())
        allocated, peak = torch.npu.memory_allocated(), torch.npu.max_memory_allocated()
        self.readings.append(Reading(self.phase, point, allocated, peak, _sim.pinned_bytes(), contents))
        torch.npu.reset_peak_memory_stats()

    def of(self, phase: str) -> list[Reading]:
        """The readings of a phase."""
        return [reading for reading in self.readings if reading.phase == phase]

    @property
    def points(self) -> dict[str, dict[str, int]]:
        """By "phase.point", the last reading there."""
        return {
            f"{one.phase}.{one.point}": {"allocated": one.allocated, "peak": one.peak, "pinned": one.pinned}
            for one in self.readings
        }

    @contextmanager
    def measured(self, phase: str) -> Iterator[None]:
        """The block is a phase, with a reading at its beginning and one at its end, however it ends."""
        self.readings = [reading for reading in self.readings if reading.phase != phase]
        self.phase = phase
        self.read("begin")
        try:
            yield
        finally:
            self.read("end")

    def read_after(self, owner: Any, name: str, before: bool = False) -> None:
        """From now on `owner.name(...)` is followed by a reading at `name`, and follows one `before` it."""
        original = getattr(owner, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            if before:
                self.read(f"before_{name}")
            result = original(*args, **kwargs)
            self.read(name)
            return result

        setattr(owner, name, call)

    def read_around_async(self, owner: Any, name: str) -> None:
        """From now on `await owner.name(...)` has a reading before it and one after it, named with its tags."""
        original = getattr(owner, name)

        async def call(*args: Any, **kwargs: Any) -> Any:
            point = "_".join([name, *kwargs.get("tags", [])])
            self.read(f"before_{point}")
            result = await original(*args, **kwargs)
            self.read(point)
            return result

        setattr(owner, name, call)
