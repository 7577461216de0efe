# SPDX-License-Identifier: Apache-2.0
"""``torch_npu._C._distributed_c10d``: the process group of the hccl backend."""

from torch_npu._sim import ProcessGroupHCCL

__all__ = ["ProcessGroupHCCL"]
