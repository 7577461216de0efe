# SPDX-License-Identifier: Apache-2.0
"""`[hardware]`: nodes that have no name here."""

from __future__ import annotations

from dataclasses import dataclass

from recipe.runfile.schema.cluster import Cluster
from recipe.runfile.schema.hardware import Figure, Hardware
from recipe.runfile.typed_toml import FREE, key

SOURCE = "the run file"
# The figures of such nodes that are keys of [cluster] and of [hardware].
OF_CLUSTER = ("dies_per_node", "hbm_gib_per_die", "host_memory_gib_per_node")
OF_HARDWARE = ("name", "tflops_bf16", "memory_gb_s", "node_link_gb_s", "network_gb_s")


@dataclass(frozen=True, kw_only=True)
class CustomHardware:
    """What the dies of `[cluster] hardware = "custom"` can do, by their data sheet; no other hardware has this section.
    All of it but `dies_per_device` is needed, and in `[cluster]` `dies_per_node`, `hbm_gib_per_die` and
    `host_memory_gib_per_node`.
    """

    name: str | None = key("what a reader calls such nodes", None, on_resume=FREE)
    dies_per_device: int = key("dies of what is sold as one NPU or GPU", 1, least=1, on_resume=FREE)
    tflops_bf16: float | None = key("dense products of a die", None, unit="TFLOPS", least=1, on_resume=FREE)
    memory_gb_s: float | None = key("of a die's memory", None, unit="GB/s", least=1, on_resume=FREE)
    node_link_gb_s: float | None = key(
        "what a die sends to those of its node, in one direction", None, unit="GB/s", least=0.1, on_resume=FREE
    )
    network_gb_s: float | None = key(
        "what a die sends to those of other nodes, in one direction", None, unit="GB/s", least=0.1, on_resume=FREE
    )


def missing_figures(cluster: Cluster, table: CustomHardware) -> list[str]:
    """The keys that `custom` needs and that are not given, by section."""
    sections = {"[cluster]": (cluster, OF_CLUSTER), "[hardware]": (table, OF_HARDWARE)}
    return [
        f"{section} {name}"
        for section, (values, names) in sections.items()
        for name in names
        if getattr(values, name) is None
    ]


def custom_hardware(cluster: Cluster, table: CustomHardware) -> Hardware:
    """The nodes as the run file describes them. `missing_figures` must be empty."""

    def given(value: float | None) -> Figure:
        assert value is not None
        return Figure(value, SOURCE)

    return Hardware(
        name=table.name or "",
        device=cluster.device,
        torch_name=r".*",
        limits=None,
        dies_per_node=cluster.dies_per_node,
        dies_per_device=table.dies_per_device,
        label_gb=None,
        offered_gib=given(cluster.hbm_gib_per_die),
        tflops_bf16=given(table.tflops_bf16),
        memory_gb_s=given(table.memory_gb_s),
        node_link_gb_s=given(table.node_link_gb_s),
        network_gb_s=given(table.network_gb_s),
        host_gib=given(cluster.host_memory_gib_per_node),
    )
