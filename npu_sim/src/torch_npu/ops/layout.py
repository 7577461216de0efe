# SPDX-License-Identifier: Apache-2.0
"""Memory formats and hints. Formats have no effect on values and are not simulated: every tensor is ND."""

from torch import Tensor

from . import checks
from .registry import CALLS, op

ND, FRACTAL_NZ = 2, 29
# NCHW, NHWC, ND, NDHWC and NCDHW: names for the axes. A cast between these moves nothing (torch_npu's FormatHelper).
BASE_FORMATS = (0, 1, ND, 27, 30)


def _same(name: str, tensor: Tensor, acl_format: int) -> Tensor:
    # Not an @op: the result is the argument itself, gradients and all.
    CALLS[name] += 1
    if tensor.device.type != "npu":
        raise RuntimeError(f"{name}: self is on {tensor.device}, expected an npu tensor; move it with .npu()")
    checks.only(name, (*BASE_FORMATS, FRACTAL_NZ), acl_format=acl_format)
    return tensor


def npu_format_cast(self: Tensor, acl_format: int) -> Tensor:
    """The tensor itself: the base formats and FRACTAL_NZ (29) hold the same values."""
    return _same("npu_format_cast", self, acl_format)


def npu_format_cast_(self: Tensor, acl_format: int) -> Tensor:
    """In-place form of :func:`npu_format_cast`."""
    return _same("npu_format_cast_", self, acl_format)


def get_npu_format(self: Tensor) -> int:
    """Always ND (2)."""
    _same("get_npu_format", self, ND)
    return ND


@op()
def npu_prefetch(input: Tensor, dependency: Tensor | None, max_size: int, offset: int = 0) -> None:
    """A cache hint; nothing to do."""
    checks.true("npu_prefetch", "max_size", max_size > 0, max_size, "a positive number of bytes")
