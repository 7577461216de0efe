# SPDX-License-Identifier: Apache-2.0
"""What the limits of fused operators ask of an argument: each function makes the ``outside`` of a CallLimit.

An argument that was not given (None) is inside every limit.
"""

from collections.abc import Callable, Collection

import torch
from torch import Tensor
from torch_npu.limits.fact import Arguments

Outside = Callable[[Arguments], str | None]

HALF_TYPES = frozenset({torch.bfloat16, torch.float16})


def shape_text(tensor: Tensor) -> str:
    """As in "of shape [2, 1, 64]"."""
    return f"of shape {list(tensor.shape)}"


def dtype_in(argument: str, accepted: Collection[torch.dtype]) -> Outside:
    """The tensor has one of these dtypes."""

    def outside(arguments: Arguments) -> str | None:
        tensor = arguments[argument]
        if tensor is None or tensor.dtype in accepted:
            return None
        return str(tensor.dtype).removeprefix("torch.")

    return outside


def contiguous(argument: str) -> Outside:
    """The tensor's elements lie one after another."""

    def outside(arguments: Arguments) -> str | None:
        tensor = arguments[argument]
        return None if tensor is None or tensor.is_contiguous() else f"not contiguous (strides {list(tensor.stride())})"

    return outside


def size(argument: str, dimension: int, accepted: Callable[[int], bool]) -> Outside:
    """The size in one dimension is an accepted one; a tensor without that dimension is outside."""

    def outside(arguments: Arguments) -> str | None:
        tensor = arguments[argument]
        if tensor is None:
            return None
        there = -tensor.dim() <= dimension < tensor.dim()
        return None if there and accepted(tensor.shape[dimension]) else shape_text(tensor)

    return outside
