# SPDX-License-Identifier: Apache-2.0
"""``torch_npu.profiler`` on the simulated NPU: what ran, in which order, within which marks, as a Chrome trace.

Operators, fused operators and collectives are recorded by ``torch.profiler``, in the thread that calls them, which is
where the simulator runs them. Times are the host's and say nothing of an NPU. There are no streams, tasks and counters
of a device, so that levels and metrics change nothing.
"""

import enum
from typing import Any

from torch.profiler import ProfilerAction, schedule
from torch_npu.profiler.recording import profile, tensorboard_trace_handler

__all__ = [
    "AiCMetrics",
    "ExportType",
    "ProfilerAction",
    "ProfilerActivity",
    "ProfilerLevel",
    "_ExperimentalConfig",
    "profile",
    "schedule",
    "tensorboard_trace_handler",
]


class ProfilerActivity(enum.Enum):
    """What to record."""

    CPU = "CPU"
    NPU = "NPU"


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
