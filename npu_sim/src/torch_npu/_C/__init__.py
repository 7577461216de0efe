# SPDX-License-Identifier: Apache-2.0
"""Names that the pinned upstreams take from torch_npu's own extension."""

from torch_npu._C import _distributed_c10d
from torch_npu._version import SOC_VERSION


class _NPUTaskGroupHandle:
    """Handle of a captured task group; graphs are not simulated, so none is ever made."""

    def __init__(self) -> None:
        raise NotImplementedError("NPU graphs are not simulated")


def _npu_get_soc_version() -> int:
    return SOC_VERSION


__all__ = ["_NPUTaskGroupHandle", "_distributed_c10d", "_npu_get_soc_version"]
