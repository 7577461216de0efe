# SPDX-License-Identifier: Apache-2.0
"""What a die can do by its data sheet; nothing of this was measured here. Its memory is in `recipe.runfile.schema`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from recipe.runfile.schema import RunConfig


@dataclass(frozen=True)
class Hardware:
    """Peak figures of one die, in one direction where there are two.

    Attributes:
        name: what a reader calls it.
        tflops_bf16: dense products in bfloat16, TFLOPS.
        memory_gb_s: of its memory, GB/s.
        link_gb_s: to the dies that it exchanges tokens with, GB/s.
        dies_per_device: dies of what is sold and counted as one.
        source: where the figures are from.
    """

    name: str
    tflops_bf16: float
    memory_gb_s: float
    link_gb_s: float
    dies_per_device: int
    source: str


# By `[cluster] hardware`, every one of `recipe.runfile.schema.DIE_KINDS`.
BY_NAME: Mapping[str, Hardware] = {
    "a2": Hardware(
        "Ascend A2 (910B3)",
        tflops_bf16=313,
        memory_gb_s=1600,
        link_gb_s=25,
        dies_per_device=1,
        source="public reports of the Ascend 910B3; 200 Gb/s a die between nodes are assumed",
    ),
    # Half of a package of two dies: 780 TFLOPS, 3200 GB/s and 784 GB/s in both directions.
    "a3": Hardware(
        "Ascend A3, one die of two",
        tflops_bf16=390,
        memory_gb_s=1600,
        link_gb_s=196,
        dies_per_device=2,
        source="public reports of the Ascend 910C package, halved",
    ),
    "h20": Hardware(
        "NVIDIA H20",
        tflops_bf16=148,
        memory_gb_s=4000,
        link_gb_s=50,
        dies_per_device=1,
        source="NVIDIA's data sheet; 400 Gb/s a GPU between nodes are assumed",
    ),
    "h20_141gb": Hardware(
        "NVIDIA H20 of 141 GB",
        tflops_bf16=148,
        memory_gb_s=4800,
        link_gb_s=50,
        dies_per_device=1,
        source="as the H20, with the memory of the H200",
    ),
}


def hardware_of(config: RunConfig) -> Hardware | None:
    """The dies of a run; None for simulated ones."""
    kind = config.cluster.die_kind
    return None if kind is None else BY_NAME[kind]
