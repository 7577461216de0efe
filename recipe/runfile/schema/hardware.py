# SPDX-License-Identifier: Apache-2.0
"""The hardware that `[cluster] hardware` names.

Nothing of this was measured here: each figure has its source beside it, or says that it is assumed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

SIM, NPU, CUDA = DEVICES = ("sim", "npu", "cuda")
CUSTOM = "custom"
# Dies of one kind differ by less in what their drivers leave of them, and kinds that torch gives one name by more.
SAME_MEMORY = 0.02
GIB = 2**30


class Figure(float):
    """A number, and where it is from.

    Attributes:
        source: where; it begins with "assumed" where nobody was found who says so.
    """

    source: str

    def __new__(cls, value: float, source: str) -> Figure:
        figure = super().__new__(cls, value)
        figure.source = source
        return figure


@dataclass(frozen=True)
class Hardware:
    """A node and its dies. A die is what torch sees as one device; rates are peaks, of one die.

    Attributes:
        name: what a reader calls it.
        device: one of DEVICES.
        torch_name: pattern of the whole name that torch gives such a die.
        limits: whose limits of fused operators `NPU_SIM_DIE` names; None where they are not an NPU's.
        dies_per_node: of such a node.
        dies_per_device: of what is sold and counted as one NPU or GPU.
        label_gb: the memory that a die is sold with, GB; None where nobody has said.
        offered_gib: the total that torch reports on a die (`mem_get_info`), GiB.
        tflops_bf16: dense products in bfloat16, TFLOPS.
        memory_gb_s: of its memory, GB/s.
        node_link_gb_s: what it sends to the dies of its node, in one direction, GB/s.
        network_gb_s: what it sends to those of other nodes, GB/s.
        host_gib: memory of a node's host, GiB.
    """

    name: str
    device: str
    torch_name: str
    limits: str | None
    dies_per_node: int
    dies_per_device: int
    label_gb: float | None
    offered_gib: Figure
    tflops_bf16: Figure
    memory_gb_s: Figure
    node_link_gb_s: Figure
    network_gb_s: Figure
    host_gib: Figure

    @property
    def figures(self) -> Mapping[str, Figure]:
        """The figures that have a source, by their names."""
        return {name: value for name, value in vars(self).items() if isinstance(value, Figure)}


_A2_SHEET = "public reports of the Ascend 910B3; of the 910B kinds with 64 GB the slowest"
_CLOUDMATRIX = "arXiv:2506.12708, of a die of the Ascend 910C in a CloudMatrix384"
_H20_SHEET = "public reports of NVIDIA's data sheet of the H20"
_H100_SHEET = "NVIDIA H100 data sheet, SXM"
_H200_SHEET = "NVIDIA H200 data sheet, SXM"
_A100_SHEET = "NVIDIA A100 80GB data sheet, SXM"

HARDWARE: Mapping[str, Hardware] = {
    "a2_64": Hardware(
        "Ascend A2, 64 GB", NPU, r"Ascend910B\d\S*", "a2", dies_per_node=8, dies_per_device=1, label_gb=64,
        offered_gib=Figure(60.96, "vllm-project/vllm-ascend#5020, an Atlas 800I A2; elsewhere 60.94 and 60.97"),
        tflops_bf16=Figure(313, _A2_SHEET),
        memory_gb_s=Figure(1600, _A2_SHEET),
        node_link_gb_s=Figure(196, "public reports: 392 GB/s both ways to the seven others; to each of them 28"),
        network_gb_s=Figure(25, "one 200GE port a die, in public descriptions of the Atlas 800 A2"),
        host_gib=Figure(1536, "assumed"),
    ),
    "a3_128": Hardware(
        "Ascend A3, two dies of 64 GB", NPU, r"Ascend910_93\d\d", "a3", dies_per_node=16, dies_per_device=2,
        label_gb=64,
        offered_gib=Figure(61.27, "sgl-project/sglang#29838, an Ascend A3"),
        tflops_bf16=Figure(376, _CLOUDMATRIX),
        memory_gb_s=Figure(1600, _CLOUDMATRIX),
        node_link_gb_s=Figure(196, _CLOUDMATRIX),
        network_gb_s=Figure(196, f"{_CLOUDMATRIX}: one fabric spans its 48 nodes; between two of them 25"),
        host_gib=Figure(1862, "verl recipe/r1_ascend, README: 2 TB"),
    ),
    "h20_96": Hardware(
        "NVIDIA H20, 96 GB", CUDA, r"NVIDIA H20", None, dies_per_node=8, dies_per_device=1, label_gb=96,
        offered_gib=Figure(95.08, "sgl-project/sglang#10736, an H20; elsewhere 95.22"),
        tflops_bf16=Figure(148, _H20_SHEET),
        memory_gb_s=Figure(4000, _H20_SHEET),
        node_link_gb_s=Figure(450, _H20_SHEET),
        network_gb_s=Figure(50, "assumed: 400 Gb/s a GPU"),
        host_gib=Figure(1490, "verl docs/perf/dpsk.md: 1.6 TB a node"),
    ),
    "h20_141": Hardware(
        "NVIDIA H20, 141 GB", CUDA, r"NVIDIA H20(-3e)?", None, dies_per_node=8, dies_per_device=1, label_gb=141,
        offered_gib=Figure(139.80, "as an H200: nvidia-smi has 143771 MiB of both"),
        tflops_bf16=Figure(148, _H20_SHEET),
        memory_gb_s=Figure(4800, "assumed: memory of an H200"),
        node_link_gb_s=Figure(450, _H20_SHEET),
        network_gb_s=Figure(50, "assumed: 400 Gb/s a GPU"),
        host_gib=Figure(1862, "assumed: 2 TB"),
    ),
    "h100_80": Hardware(
        "NVIDIA H100, 80 GB", CUDA, r"NVIDIA H100 80GB HBM3", None, dies_per_node=8, dies_per_device=1, label_gb=80,
        offered_gib=Figure(79.11, "vllm-project/vllm#27508, an H100; elsewhere 79.10 and 79.19"),
        tflops_bf16=Figure(989, _H100_SHEET),
        memory_gb_s=Figure(3350, _H100_SHEET),
        node_link_gb_s=Figure(450, _H100_SHEET),
        network_gb_s=Figure(50, "NVIDIA DGX H100 data sheet: 400 Gb/s a GPU"),
        host_gib=Figure(1862, "NVIDIA DGX H100 data sheet: 2 TB"),
    ),
    "h200_141": Hardware(
        "NVIDIA H200, 141 GB", CUDA, r"NVIDIA H200", None, dies_per_node=8, dies_per_device=1, label_gb=141,
        offered_gib=Figure(139.80, "stas00/the-art-of-debugging, an H200; elsewhere 139.81"),
        tflops_bf16=Figure(989, _H200_SHEET),
        memory_gb_s=Figure(4800, _H200_SHEET),
        node_link_gb_s=Figure(450, _H200_SHEET),
        network_gb_s=Figure(50, "NVIDIA DGX H200 data sheet: 400 Gb/s a GPU"),
        host_gib=Figure(1862, "NVIDIA DGX H200 data sheet: 2 TB"),
    ),
    "a100_80": Hardware(
        "NVIDIA A100, 80 GB", CUDA, r"NVIDIA A100-SXM4-80GB", None, dies_per_node=8, dies_per_device=1, label_gb=80,
        offered_gib=Figure(79.15, "vllm-project/vllm#9011, an A100; elsewhere 79.25 and 79.33"),
        tflops_bf16=Figure(312, _A100_SHEET),
        memory_gb_s=Figure(2039, _A100_SHEET),
        node_link_gb_s=Figure(300, _A100_SHEET),
        network_gb_s=Figure(25, "NVIDIA DGX A100 data sheet: 200 Gb/s a GPU"),
        host_gib=Figure(1862, "NVIDIA DGX A100 data sheet, of 640 GB: 2 TB"),
    ),
}  # fmt: skip


def identified(torch_name: str, total_bytes: int) -> str | None:
    """The key of `HARDWARE` that has such dies: by the name that torch gives one and the total that it reports."""
    for key, hardware in HARDWARE.items():
        same = abs(total_bytes / GIB / hardware.offered_gib - 1) < SAME_MEMORY
        if same and re.fullmatch(hardware.torch_name, torch_name):
            return key
    return None
