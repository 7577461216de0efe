# SPDX-License-Identifier: Apache-2.0
"""The kinds of dies that `[cluster] hardware` names: what torch is offered on one, which is less than its label."""

from __future__ import annotations

from dataclasses import dataclass

SIM, NPU, CUDA = DEVICES = ("sim", "npu", "cuda")


@dataclass(frozen=True)
class DieKind:
    """One die as torch sees it.

    Attributes:
        device: one of DEVICES.
        label_gb: the memory that it is sold with.
        offered_gib: the total that torch reports on it (`mem_get_info`), to two digits, as logs print it.
        per_node: dies of such a node.
        source: where `offered_gib` was read; nothing of this was measured here.
    """

    device: str
    label_gb: float
    offered_gib: float
    per_node: int
    source: str


# Totals differ a little between drivers: 60.94 to 60.97 GiB were seen on A2, 95.08 and 95.22 on H20.
DIE_KINDS = {
    "a2": DieKind(NPU, 64, 60.96, 8, "vllm-project/vllm-ascend#5020: out of memory on an Atlas 800I A2"),
    "a3": DieKind(NPU, 64, 61.27, 16, "sgl-project/sglang#29838: out of memory on an Ascend A3"),
    "h20": DieKind(CUDA, 96, 95.08, 8, "sgl-project/sglang#10736: out of memory on an H20"),
    "h20_141gb": DieKind(CUDA, 141, 139.80, 8, "logs of H200, which have as much; none was found that names this card"),
}
# What a run file means that names none.
ASSUMED = {NPU: "a3", CUDA: "h20"}
