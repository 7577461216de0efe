# SPDX-License-Identifier: Apache-2.0
"""What limits of fused operators ask of one argument.

A condition gets the argument's value and all arguments of the call, and says in words what it found where the value is
outside, as in "of shape [2, 1, 32]"; None where it is inside. An argument that was not given (None) is inside every
condition but ``given``, and of a list of tensors each is looked at.
"""

import os
from collections.abc import Callable, Collection
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch_npu.limits.fact import Arguments

Condition: TypeAlias = Callable[[Any, Arguments], str | None]

HALF_TYPES = frozenset({torch.bfloat16, torch.float16})


DIE = "NPU_SIM_DIE"
"""Environment variable: the kind of the simulated dies, where limits are not the same for all."""


def on_a2() -> bool:
    """Whether the simulated dies are those of an A2; else they are an A3's."""
    kind = os.environ.get(DIE, "a3")
    if kind not in ("a2", "a3"):
        raise ValueError(f"{DIE} is {kind!r}, expected a2 or a3; correct the environment variable")
    return kind == "a2"


def dtype_text(dtype: torch.dtype) -> str:
    """As in "bfloat16"."""
    return str(dtype).removeprefix("torch.")


def shape_text(tensor: Tensor) -> str:
    """As in "of shape [2, 1, 64]"."""
    return f"of shape {list(tensor.shape)}"


def given(value: Any, _: Arguments) -> str | None:
    """The argument is not None."""
    return "None" if value is None else None


def contiguous(tensor: Tensor, _: Arguments) -> str | None:
    """The tensor's elements lie one after another."""
    return None if tensor.is_contiguous() else f"not contiguous (strides {list(tensor.stride())})"


def not_empty(tensor: Tensor, _: Arguments) -> str | None:
    """The tensor has elements."""
    return None if tensor.numel() else shape_text(tensor)


def dtype_in(*accepted: torch.dtype) -> Condition:
    """The tensor has one of these dtypes."""
    return lambda tensor, _: None if tensor.dtype in accepted else dtype_text(tensor.dtype)


half_types = dtype_in(*HALF_TYPES)


def dtype_of(other: str) -> Condition:
    """The tensor has the dtype of another argument."""

    def found(tensor: Tensor, arguments: Arguments) -> str | None:
        expected = arguments[other].dtype
        return None if tensor.dtype == expected else f"{dtype_text(tensor.dtype)} with {other} {dtype_text(expected)}"

    return found


def rank(least: int, most: int) -> Condition:
    """The tensor has so many dimensions."""
    return lambda tensor, _: None if least <= tensor.dim() <= most else shape_text(tensor)


def size(dimension: int, accepted: Callable[[int], bool] | Collection[int]) -> Condition:
    """The size in one dimension is an accepted one; a tensor without that dimension is outside."""

    def found(tensor: Tensor, _: Arguments) -> str | None:
        there = -tensor.dim() <= dimension < tensor.dim()
        return None if there and _accepts(accepted, tensor.shape[dimension]) else shape_text(tensor)

    return found


def elements(most: int) -> Condition:
    """The tensor has at most so many elements."""
    return lambda tensor, _: None if tensor.numel() <= most else shape_text(tensor)


def value(accepted: Callable[[Any], bool] | Collection[Any]) -> Condition:
    """The option is an accepted one."""
    return lambda option, _: None if _accepts(accepted, option) else repr(option)


def values(least: float, most: float) -> Condition:
    """No element is smaller or larger."""

    def found(tensor: Tensor, _: Arguments) -> str | None:
        if tensor.numel() == 0:
            return None
        low, high = tensor.min().item(), tensor.max().item()
        return None if least <= low and high <= most else f"between {low:g} and {high:g}"

    return found


def _accepts(accepted: Callable[[Any], bool] | Collection[Any], option: Any) -> bool:
    return accepted(option) if callable(accepted) else option in accepted
