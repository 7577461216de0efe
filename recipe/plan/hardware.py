# SPDX-License-Identifier: Apache-2.0
"""The hardware that run files name, as the Markdown tables of docs/PLAN.md."""

from __future__ import annotations

from collections.abc import Iterator

from recipe.runfile.schema import HARDWARE

# What each figure is called in a table.
TITLES = {
    "offered_gib": "torch is offered, GiB",
    "tflops_bf16": "bfloat16, TFLOPS",
    "memory_gb_s": "memory, GB/s",
    "node_link_gb_s": "in a node, GB/s",
    "network_gb_s": "between nodes, GB/s",
    "host_gib": "host, GiB",
}


def hardware_table() -> Iterator[str]:
    """Lines of a Markdown table: the figures of each, of one die but for the host's memory."""
    yield f"| `hardware` | what it is | dies of a node | {' | '.join(TITLES.values())} |"
    yield f"|---|---|{'---:|' * (1 + len(TITLES))}"
    for key, hardware in HARDWARE.items():
        cells = [f"`{key}`", hardware.name, f"{hardware.dies_per_node}"]
        yield f"| {' | '.join([*cells, *(f'{hardware.figures[name]:g}' for name in TITLES)])} |"


def source_table() -> Iterator[str]:
    """Lines of a Markdown table: where each figure is from."""
    yield "| `hardware` | figure | source |"
    yield "|---|---|---|"
    for key, hardware in HARDWARE.items():
        figures: dict[str, list[str]] = {}
        for name, figure in hardware.figures.items():
            figures.setdefault(figure.source, []).append(TITLES[name].partition(",")[0])
        for source, titles in figures.items():
            yield f"| `{key}` | {'; '.join(titles)} | {source} |"
