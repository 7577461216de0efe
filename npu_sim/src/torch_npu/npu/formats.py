# SPDX-License-Identifier: Apache-2.0
"""Memory formats by CANN's numbers."""

from enum import IntEnum


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
