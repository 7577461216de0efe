# SPDX-License-Identifier: Apache-2.0
"""What a die can do by its data sheet; nothing of this was measured here."""

from __future__ import annotations

from dataclasses import dataclass

from recipe.runfile.schema import CUDA, NPU


@dataclass(frozen=True)
class Hardware:
    """Peak figures of one die, in one direction where there are two; `source` says where they are from."""

    name: str
    tflops_bf16: float
    memory_gb_s: float
    link_gb_s: float
    source: str


BY_DEVICE = {
    # Half of a package of two dies: 780 TFLOPS, 3200 GB/s and 784 GB/s in both directions.
    NPU: Hardware(
        "Ascend A3, one die of two",
        tflops_bf16=390,
        memory_gb_s=1600,
        link_gb_s=196,
        source="public reports of the Ascend 910C package, halved",
    ),
    CUDA: Hardware(
        "NVIDIA H20",
        tflops_bf16=148,
        memory_gb_s=4000,
        link_gb_s=50,
        source="NVIDIA's data sheet; 400 Gb/s a GPU between nodes are assumed",
    ),
}
