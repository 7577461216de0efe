# SPDX-License-Identifier: Apache-2.0
"""While a block runs, `Tensor.type()` of an NPU tensor reads as that of a CUDA tensor."""

# NPU-ADAPTATION: npu tensors pass comparisons with the names of CUDA tensors

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch


@contextlib.contextmanager
def cuda_type_names() -> Iterator[None]:
    """Let Megatron-core's comparisons with 'torch.cuda.FloatTensor' and its kin hold for npu tensors."""
    original = torch.Tensor.type

    def type_as_cuda(self: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        result = original(self, *args, **kwargs)
        return result.replace("torch.npu.", "torch.cuda.") if isinstance(result, str) else result

    torch.Tensor.type = type_as_cuda
    try:
        yield
    finally:
        torch.Tensor.type = original
