# SPDX-License-Identifier: Apache-2.0
"""The documents and sources that the limits are from, at the versions that the recipe pins.

CANN itself is not open at the pinned version (8.2.RC1), but for ATB. Its operators were opened with 8.3: what is only
said there is taken from the first public state, which also serves to contradict a document.
"""

from torch_npu.limits.fact import Source

OP_PLUGIN = "op-plugin 7.1.0"
MINDSPEED = "MindSpeed f6688c6"
ATB = "ascend-transformer-boost 8.2.RC1"
CANN_OPERATORS = "CANN ops-transformer c29bc10"

TORCH_NPU = "torch_npu v2.5.1-7.1.0"

ATB_TABLE = Source(ATB, "ops_configs/atb_ops_info.ini")
"""The dtypes of every operator of ATB."""
ATB_TENSORS = Source(OP_PLUGIN, "op_plugin/utils/custom_functions/atb/AtbCommon.cpp")
"""How tensors are handed to ATB."""

CANN_MM = Source("CANN 8.2.RC1", "page of aclnnMm")
# The oldest edition that lists dtypes; the pinned torch_npu is older, and is not expected to take more.
TORCH_FUNCTIONS = Source("torch_npu v2.7.1-7.3.0", "docs/zh/native_apis/pytorch_2-7-1/torch.md")
NN_FUNCTIONS = Source("torch_npu v2.7.1-7.3.0", "docs/zh/native_apis/pytorch_2-7-1/torch-nn-functional.md")
HCCL = Source(TORCH_NPU, "torch_npu/csrc/distributed/ProcessGroupHCCL.cpp")


def page(operator: str, *, beta: bool = False) -> Source:
    """The page of a fused operator in op-plugin's documents; those in trial say so in their names."""
    trial = "\N{FULLWIDTH LEFT PARENTHESIS}beta\N{FULLWIDTH RIGHT PARENTHESIS}" if beta else ""
    return Source(OP_PLUGIN, f"docs/context/{trial}torch_npu-{operator}.md")


def op_plugin(file: str) -> Source:
    """A file of op-plugin's operators."""
    return Source(OP_PLUGIN, f"op_plugin/ops/{file}")


def atb(operator: str) -> Source:
    """The checks of one operator of ATB."""
    return Source(ATB, f"src/ops_infer/{operator}/{operator}_operation.cpp")


def atb_kernel(operator: str) -> Source:
    """The checks of one kernel of ATB."""
    return Source(ATB, f"src/kernels/mixkernels/{operator}/{operator}_operation.cpp")


def cann(file: str) -> Source:
    """A file of CANN's own operators."""
    return Source(CANN_OPERATORS, file)


def mindspeed(file: str) -> Source:
    """A file of MindSpeed."""
    return Source(MINDSPEED, file)


def torch_npu(file: str) -> Source:
    """A file of torch_npu itself."""
    return Source(TORCH_NPU, f"torch_npu/csrc/{file}")
