# SPDX-License-Identifier: Apache-2.0
"""Argument checks shared by the simulated operators.

Every message starts with the operator's name, says what was found, what the device accepts, and which argument it is
about. Devices are checked by :mod:`torch_npu.ops.registry`; shapes, dtypes and options here.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

FLOATS = (torch.float16, torch.bfloat16, torch.float32)
"""Floating types the emulated kernels take; float32 (for exactness tests) even where a real kernel has halves only."""

INT32 = (torch.int32,)
INT64 = (torch.int64,)
INDEX = (torch.int32, torch.int64)


def unsupported(op: str, argument: str, value: Any, accepted: Any) -> NotImplementedError:
    """The error for an option that the real operator may have and the simulator has not."""
    shown = f"tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
    return NotImplementedError(f"{op} (simulated NPU): {argument}={shown} is not simulated; use {accepted}")


def only(op: str, accepted: Any, /, **arguments: Any) -> None:
    """Raise NotImplementedError for the first argument that is not ``accepted``, nor in it when it is a tuple."""
    for argument, value in arguments.items():
        allowed = accepted if isinstance(accepted, tuple) else (accepted,)
        if isinstance(value, Tensor) or value not in allowed:
            raise unsupported(op, argument, value, " or ".join(map(repr, allowed)))


def absent(op: str, /, **arguments: Any) -> None:
    """Raise NotImplementedError for the first of ``arguments`` that is not None."""
    for argument, value in arguments.items():
        if value is not None:
            raise unsupported(op, argument, value, "None")


def invalid(op: str, argument: str, actual: Any, expected: Any) -> ValueError:
    """The error for a value that the real operator refuses as well."""
    return ValueError(f"{op}: {argument} is {actual}, expected {expected}")


def dtype(op: str, argument: str, tensor: Tensor, accepted: Iterable[torch.dtype]) -> None:
    """Check one tensor's dtype."""
    accepted = tuple(accepted)
    if tensor.dtype not in accepted:
        names = ", ".join(str(d).removeprefix("torch.") for d in accepted)
        raise invalid(op, argument, f"of dtype {str(tensor.dtype).removeprefix('torch.')}", names)


def same_dtype(op: str, /, **tensors: Tensor) -> None:
    """Check that all tensors have the dtype of the first."""
    names = iter(tensors.items())
    first_name, first = next(names)
    for name, tensor in names:
        if tensor.dtype != first.dtype:
            raise invalid(op, name, f"of dtype {tensor.dtype}", f"{first.dtype}, the dtype of {first_name}")


def rank(op: str, argument: str, tensor: Tensor, *accepted: int) -> None:
    """Check one tensor's number of dimensions."""
    if tensor.dim() not in accepted:
        raise invalid(
            op,
            argument,
            f"{tensor.dim()}-dimensional {tuple(tensor.shape)}",
            f"{' or '.join(map(str, accepted))} dimensions",
        )


def shape(op: str, argument: str, tensor: Tensor, expected: Sequence[int]) -> None:
    """Check one tensor's shape; -1 in ``expected`` stands for any size."""
    actual = tensor.shape
    if len(actual) != len(expected) or any(e not in (-1, f) for e, f in zip(expected, actual, strict=True)):
        raise invalid(op, argument, f"of shape {tuple(actual)}", f"{tuple(expected)} (-1: any)")


def true(op: str, argument: str, condition: bool, actual: Any, expected: Any) -> None:
    """Raise ValueError unless `condition` holds."""
    if not condition:
        raise invalid(op, argument, actual, expected)
