# SPDX-License-Identifier: Apache-2.0
"""The documents and sources that the limits are from, at the versions that the recipe pins."""

from torch_npu.limits.fact import Source

OP_PLUGIN = "op-plugin 7.1.0"

# The oldest edition that lists dtypes; the pinned torch_npu is older, and is not expected to take more.
TORCH_FUNCTIONS = Source("torch_npu 7.3.0 for torch 2.7.1", "docs/zh/native_apis/pytorch_2-7-1/torch.md")
NN_FUNCTIONS = Source("torch_npu 7.3.0 for torch 2.7.1", "docs/zh/native_apis/pytorch_2-7-1/torch-nn-functional.md")
HCCL = Source("torch_npu 7.1.0 for torch 2.5.1", "torch_npu/csrc/distributed/ProcessGroupHCCL.cpp")


def page(operator: str, *, beta: bool = False) -> Source:
    """The page of a fused operator in op-plugin's documents; "(beta)" is in the names of those in trial."""
    return Source(OP_PLUGIN, f"docs/context/{'(beta)' if beta else ''}torch_npu-{operator}.md")
