# SPDX-License-Identifier: Apache-2.0
"""Memory formats by CANN's numbers."""

from collections.abc import Sequence
from enum import IntEnum
from math import prod


class Format(IntEnum):
    """How a tensor lies in memory."""

    UNDEFINED = -1
    NCHW = 0
    NHWC = 1
    ND = 2
    NC1HWC0 = 3
    FRACTAL_Z = 4
    NC1HWC0_C04 = 12
    HWCN = 16
    NDHWC = 27
    FRACTAL_NZ = 29
    NCDHW = 30
    NDC1HWC0 = 32
    FRACTAL_Z_3D = 33
    NC = 35
    NCL = 47

    def __str__(self) -> str:
        return self.name


PLAIN = frozenset({Format.NCHW, Format.NHWC, Format.ND, Format.NDHWC, Format.NCDHW})
"""The formats of rows, which tensors have without a cast."""

BASE = {
    Format.NC1HWC0: Format.NCHW,
    Format.FRACTAL_Z: Format.NCHW,
    Format.FRACTAL_NZ: Format.ND,
    Format.NDC1HWC0: Format.NCDHW,
    Format.FRACTAL_Z_3D: Format.NCDHW,
}
"""Private format -> the plain one that it is made from."""


def storage_elements(acl_format: Format, shape: Sequence[int], itemsize: int) -> int:
    """Elements that a tensor of this shape takes in memory: private formats fill up their blocks.

    From torch_npu 2.5.1-7.1.0, csrc/framework/FormatHelper.cpp. On the simulated die it takes those of its shape.
    """
    if acl_format is Format.FRACTAL_NZ:
        return prod(shape[:-2]) * _filled(shape[-2]) * _filled(shape[-1], 32 // min(itemsize, 2))
    if acl_format not in BASE:
        return prod(shape)
    # In NC1HWC0 and FRACTAL_Z, what has fewer than four dimensions lacks the batch, and some at its end.
    batch, channels, space = (1, shape[0], shape[1:]) if len(shape) < 4 else (shape[0], shape[1], shape[2:])
    if acl_format in (Format.FRACTAL_Z, Format.FRACTAL_Z_3D):
        batch = _filled(batch)
    return batch * _filled(channels) * prod(space)


def _filled(length: int, block: int = 16) -> int:
    return -(-length // block) * block
