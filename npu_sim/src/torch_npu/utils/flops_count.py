# SPDX-License-Identifier: Apache-2.0
"""Counting floating-point operations is a hardware feature; imports work, use raises."""


class FlopsCounter:
    """Refuses to be made: the simulator has no operation counter."""

    def __init__(self) -> None:
        raise NotImplementedError("torch_npu.utils.flops_count.FlopsCounter is not simulated")
