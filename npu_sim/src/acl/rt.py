# SPDX-License-Identifier: Apache-2.0
"""acl.rt: memory information of the current device."""

ACL_HBM_MEM = 1


def get_mem_info(attr: int) -> tuple[int, int, int]:
    """(free bytes, total bytes, return code 0) of HBM; ``attr`` must be ACL_HBM_MEM (1)."""
    if attr != ACL_HBM_MEM:
        raise NotImplementedError(f"acl.rt.get_mem_info: attr={attr} is not simulated; use ACL_HBM_MEM (1)")
    import torch_npu

    free, total = torch_npu.npu.mem_get_info()
    return free, total, 0


def memcpy(*args: object) -> int:
    """Only to be imported: vLLM-Ascend names it for sleep mode, which is not simulated."""
    raise NotImplementedError("acl.rt.memcpy is not simulated: sleep mode, which calls it, needs a real NPU")


def __getattr__(name: str) -> object:
    if name.startswith("__"):
        raise AttributeError(name)
    raise AttributeError(f"acl.rt.{name} is not simulated")
