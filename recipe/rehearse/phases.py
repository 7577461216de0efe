# SPDX-License-Identifier: Apache-2.0
"""What a phase of a step takes: its readings, traffic, operators and time, added up."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch.distributed as dist
from torch_npu import sim

from recipe.rehearse.contents import BEING_BUILT, REST, Contents, at_peak
from recipe.rehearse.counters import BUILD, Counters
from recipe.rehearse.job import SWITCH, Phase

SWITCHED = "before_resume_kv_cache"


class PhaseCounters(Counters):
    """Counters that also keep each phase's traffic, operators and time, and add a phase up when it ends.

    Args:
        contents: tells what is on the device.
        begin, end: are told of each phase, the latter with all that was counted in it.
    """

    def __init__(
        self,
        contents: Contents,
        begin: Callable[[str], None] = lambda phase: None,
        end: Callable[[Phase], None] = lambda phase: None,
    ) -> None:
        super().__init__(contents.bytes_by_kind)
        self.phases: dict[str, Phase] = {}
        self.loads: dict[str, float] = {}
        self._begin, self._end = begin, end
        self._counted, self._start = 0, 0.0
        self._name = BUILD

    @contextmanager
    def measured(self, phase: str) -> Iterator[None]:
        self._count_anew(0)
        self._name = SWITCH if phase == "rollout" else phase
        self._begin(self._name)
        self.loads.pop(phase, None)
        try:
            with super().measured(phase):
                yield
        finally:
            self._keep()

    def read(self, point: str) -> None:
        """Keep a reading; that before the KV cache comes, as the actor has left, ends the switch."""
        super().read(point)
        if self.phase == "rollout" and point == SWITCHED:
            self._keep()
            self._name = self.phase
            self._begin(self._name)
            self._count_anew(len(self.of(self.phase)) - 1)

    def _count_anew(self, counted: int) -> None:
        """So many of the phase's readings are counted already."""
        sim.reset_counts()
        sim.reset_traffic()
        self._counted, self._start = counted, time.monotonic()

    def _keep(self) -> None:
        self.phases[self._name] = self._added_up(self._name, time.monotonic() - self._start)
        self._end(self.phases[self._name])

    def _added_up(self, phase: str, seconds: float) -> Phase:
        readings = self.of(self.phase)[self._counted :]
        # The peak of a phase's first reading is that of what was before it.
        before, after = max(itertools.pairwise(readings), key=lambda pair: pair[1].peak)
        return Phase(
            peak_bytes=after.peak,
            resident_bytes=readings[-1].allocated,
            pinned_bytes=max(reading.pinned for reading in readings),
            contents=at_peak(before.contents, after.contents, after.peak, BEING_BUILT if phase == BUILD else REST),
            traffic=_traffic(),
            operators=sum(sim.op_counts().values()),
            wall_s=round(seconds, 3),
            expert_load=self.loads.get(phase),
        )


def _traffic() -> list[dict[str, Any]]:
    names = _group_names()
    return [
        {
            "group": names.get(one.ranks, "world" if len(one.ranks) == dist.get_world_size() else "other"),
            "size": len(one.ranks), "kind": one.kind, "calls": one.calls, "sent": one.sent, "received": one.received,
        }
        for one in sim.traffic()
    ]  # fmt: skip


def _group_names() -> dict[tuple[int, ...], str]:
    """Megatron-core's names for the groups of this rank, by their ranks; several where the same ranks have several."""
    from megatron.core import parallel_state

    if not parallel_state.is_initialized():
        return {}
    groups = {
        "tensor": parallel_state.get_tensor_model_parallel_group(),
        "pipeline": parallel_state.get_pipeline_model_parallel_group(),
        "data": parallel_state.get_data_parallel_group(),
        "expert": parallel_state.get_expert_model_parallel_group(),
        "expert data": parallel_state.get_expert_data_parallel_group(),
        "model": parallel_state.get_model_parallel_group(),
    }
    names: dict[tuple[int, ...], list[str]] = {}
    for name, group in groups.items():
        names.setdefault(tuple(dist.get_process_group_ranks(group)), []).append(name)
    return {ranks: "/".join(known) for ranks, known in names.items()}
