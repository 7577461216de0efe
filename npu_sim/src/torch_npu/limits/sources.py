# SPDX-License-Identifier: Apache-2.0
"""The documents and sources that the limits are from, at the versions that the recipe pins."""

from torch_npu.limits.fact import Source

OP_PLUGIN = "op-plugin 7.1.0"


def page(operator: str, *, beta: bool = False) -> Source:
    """The page of a fused operator in op-plugin's documents; "(beta)" is in the names of those in trial."""
    return Source(OP_PLUGIN, f"docs/context/{'(beta)' if beta else ''}torch_npu-{operator}.md")
