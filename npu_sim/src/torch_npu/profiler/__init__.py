# SPDX-License-Identifier: Apache-2.0
"""``torch_npu.profiler``: the names, so that profiling code imports. A simulated NPU has no timeline worth keeping, so
``profile`` records nothing; use ``torch.profiler`` to see where the host spends its time.
"""

import enum
from collections.abc import Callable
from types import TracebackType
from typing import Any


class ProfilerActivity(enum.Enum):
    """What to record."""

    CPU = "CPU"
    NPU = "NPU"


class ProfilerAction(enum.Enum):
    """What a step does."""

    NONE = 0
    WARMUP = 1
    RECORD = 2
    RECORD_AND_SAVE = 3


class ProfilerLevel(enum.Enum):
    """How deep to look."""

    Level_none = "Level_none"
    Level0 = "Level0"
    Level1 = "Level1"
    Level2 = "Level2"


class AiCMetrics(enum.Enum):
    """AI core counters."""

    AiCoreNone = "ACL_AICORE_NONE"
    PipeUtilization = "ACL_AICORE_PIPE_UTILIZATION"
    ArithmeticUtilization = "ACL_AICORE_ARITHMETIC_UTILIZATION"
    Memory = "ACL_AICORE_MEMORY_BANDWIDTH"


class ExportType(enum.Enum):
    """File format."""

    Text = "text"
    Db = "db"


class _ExperimentalConfig:
    """Options of a recording; kept for reading back."""

    def __init__(self, **options: Any) -> None:
        self.options = options


def schedule(
    *, wait: int = 0, active: int = 1, warmup: int = 0, repeat: int = 0, skip_first: int = 0
) -> Callable[[int], ProfilerAction]:
    """A schedule under which no step is recorded."""
    return lambda step: ProfilerAction.NONE


def tensorboard_trace_handler(dir_name: str | None = None, *args: Any, **kwargs: Any) -> Callable[[Any], None]:
    """A handler that writes nothing."""
    return lambda profiler: None


class profile:
    """A profiler that records nothing."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __enter__(self) -> "profile":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        pass

    def start(self) -> None:
        pass

    def stop(self) -> None:
        pass

    def step(self) -> None:
        pass
