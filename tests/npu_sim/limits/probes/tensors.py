# SPDX-License-Identifier: Apache-2.0
"""Tensors of probes."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Arguments = dict[str, Any]
Inside = dict[str, Callable[[], Arguments]]
"""Operator -> arguments that an NPU takes."""
Outside = dict[tuple[str, str, str], Callable[[], Arguments]]
"""Row (operator, argument, what is documented) -> for each argument of the row one that is outside, and options of the
call that belong to them; the other arguments are those of Inside.
"""


def half(*shape: int) -> Tensor:
    """A bfloat16 tensor on the device."""
    return torch.ones(shape, dtype=torch.bfloat16, device="npu")


def wide(*shape: int) -> Tensor:
    """A float32 tensor on the device."""
    return torch.ones(shape, device="npu")


def strided(*shape: int) -> Tensor:
    """A bfloat16 tensor whose rows lie twice as far apart as they are long."""
    return half(*shape[:-1], 2 * shape[-1])[..., : shape[-1]]


def counts(*numbers: int) -> Tensor:
    """An int32 tensor on the device."""
    return torch.tensor(numbers, dtype=torch.int32, device="npu")


def lengths(*numbers: int) -> Tensor:
    """An int32 tensor on the host."""
    return torch.tensor(numbers, dtype=torch.int32)


def table(rows: int, pages: int = 2) -> Tensor:
    """A block table of zeros."""
    return torch.zeros(rows, pages, dtype=torch.int32, device="npu")


def changed(tensors: dict[str, tuple[int, ...]], make: Callable[..., Tensor]) -> Callable[[], Arguments]:
    """Each named argument made anew, in its own shape."""
    return lambda: {name: make(*shape) for name, shape in tensors.items()}


def last(tensors: dict[str, tuple[int, ...]], size: int) -> Callable[[], Arguments]:
    """Each named argument with another last dimension."""
    return lambda: {name: half(*shape[:-1], size) for name, shape in tensors.items()}
