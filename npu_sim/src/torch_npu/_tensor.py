# SPDX-License-Identifier: Apache-2.0
"""Tensor-level names of ``torch_npu`` that are not operators."""

from collections.abc import Sequence

import torch

unsupported_dtype: list[torch.dtype] = []
"""Dtypes the device cannot hold; every dtype can be held here."""


def empty_with_swapped_memory(
    size: Sequence[int], *, dtype: torch.dtype | None = None, device: torch.device | str | None = None
) -> torch.Tensor:
    """On hardware: a device tensor whose bytes live in host memory. Not simulated: it would be accounted wrongly."""
    raise NotImplementedError("torch_npu.empty_with_swapped_memory is not simulated; switch the swapped optimizer off")
