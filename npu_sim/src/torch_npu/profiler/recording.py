# SPDX-License-Identifier: Apache-2.0
"""A recording by ``torch.profiler``, and the files that torch_npu's users look for."""

import os
import socket
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

TRACE = Path("ASCEND_PROFILER_OUTPUT", "trace_view.json")


class profile:
    """Records between ``start`` and ``stop``, or in the steps that ``schedule`` names.

    Args:
        activities: taken and not looked at: host and device are one here.
        schedule: from the number of a step to what it does; all are recorded without.
        on_trace_ready: is called with this object when a recording is whole.
        record_shapes, profile_memory, with_stack, with_modules, with_flops: as ``torch.profiler.profile`` has them.
        experimental_config: taken and not looked at.
    """

    def __init__(
        self,
        *,
        activities: Iterable[Any] | None = None,
        schedule: Callable[[int], Any] | None = None,
        on_trace_ready: Callable[["profile"], Any] | None = None,
        record_shapes: bool = False,
        profile_memory: bool = False,
        with_stack: bool = False,
        with_modules: bool = False,
        with_flops: bool = False,
        experimental_config: Any = None,
    ) -> None:
        self._recording = torch.profiler.profile(
            activities=[torch.profiler.ProfilerActivity.CPU],
            schedule=schedule,
            on_trace_ready=None if on_trace_ready is None else lambda _: on_trace_ready(self),
            record_shapes=record_shapes,
            profile_memory=profile_memory,
            with_stack=with_stack,
            with_modules=with_modules,
            with_flops=with_flops,
        )

    def __enter__(self) -> "profile":
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()

    def start(self) -> None:
        self._recording.start()
        self._recording.add_metadata("device", "simulated NPU: times are the host's")

    def stop(self) -> None:
        self._recording.stop()

    def step(self) -> None:
        """The next step begins."""
        self._recording.step()

    def export_chrome_trace(self, output_path: str) -> None:
        """Write what was recorded, whole or not at all."""
        Path(output_path).parent.mkdir(parents=True, exist_ok=True)
        unfinished = f"{output_path}.{os.getpid()}.json"
        try:
            self._recording.export_chrome_trace(unfinished)
            os.replace(unfinished, output_path)
        finally:
            Path(unfinished).unlink(missing_ok=True)


def tensorboard_trace_handler(
    dir_name: str | None = None, worker_name: str | None = None, analyse_flag: bool = True, async_mode: bool = False
) -> Callable[[profile], None]:
    """What writes each recording to ``dir_name/WORKER_TIME_ascend_pt/ASCEND_PROFILER_OUTPUT/trace_view.json``.

    Args:
        dir_name: default: the current directory.
        worker_name: default: host and process.
        analyse_flag, async_mode: taken and not looked at: there is no raw data that would be left to parse.
    """

    def write(recorded: profile) -> None:
        worker = worker_name or f"{socket.gethostname()}_{os.getpid()}"
        moment = time.strftime("%Y%m%d%H%M%S", time.gmtime()) + f"{time.time_ns() // 1_000_000 % 1000:03d}"
        recorded.export_chrome_trace(str(Path(dir_name or ".", f"{worker}_{moment}_ascend_pt") / TRACE))

    return write
