# SPDX-License-Identifier: Apache-2.0
"""FP8 e4m3 with one float32 scale for every block of 128x128 elements, to bfloat16.

The value is float32(byte) * scale in float32, rounded to bfloat16 to nearest even, as in DeepSeek's published
weight_dequant. Done by a numba kernel, or by torch where numba cannot be imported; both give the same bits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

BLOCK = 128

#: The signature of `dequantise`.
Kernel = Callable[[Any, int, int, Any, Any], bool]


def scale_shape(shape: tuple[int, ...]) -> tuple[int, int]:
    """The shape of the scales of a matrix [rows, columns]: one for each block, the last ones cut off."""
    rows, columns = shape
    return -(-rows // BLOCK), -(-columns // BLOCK)


def dequantise(
    raw: NDArray[np.uint8], first: int, columns: int, scales: NDArray[np.float32], out: NDArray[np.uint16]
) -> bool:
    """Elements [first, first + raw.size) of a row-major matrix of `columns` columns, as bfloat16.

    raw: uint8, the e4m3 bytes of these elements. scales: float32, those of the whole matrix (`scale_shape`).
    out: uint16 of raw.size, takes the bits of the bfloat16 numbers.

    Returns False when a byte is NaN (0x7F or 0xFF); out then holds nothing of use. The GIL is released meanwhile.
    """
    return kernel()(raw, first, columns, scales, out)


_chosen: list[Kernel] = []


def kernel() -> Kernel:
    """The kernel that `dequantise` uses; the first call imports numba (or torch)."""
    if not _chosen:
        try:
            _chosen.append(numba_kernel())
        except ImportError:
            _chosen.append(torch_kernel())
    return _chosen[0]


def numba_kernel() -> Kernel:
    """`dequantise` by numba. Raises ImportError without it."""
    from recipe.weights import fp8_kernel

    def run(
        raw: NDArray[np.uint8], first: int, columns: int, scales: NDArray[np.float32], out: NDArray[np.uint16]
    ) -> bool:
        return not fp8_kernel.dequantise(raw, first, columns, scales, out) & 0x80

    return run


def torch_kernel() -> Kernel:
    """`dequantise` by torch, over panels of rows that stay in the cache."""
    import torch

    values = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn).float()

    def rows(raw: Any, scale: Any, out: Any) -> None:
        """raw [r, c] of one block row, scale [c] already repeated, out [r, c] bfloat16."""
        out.copy_(torch.mul(values[raw.int()], scale))

    def run(
        raw: NDArray[np.uint8], first: int, columns: int, scales: NDArray[np.float32], out: NDArray[np.uint16]
    ) -> bool:
        if (raw & np.uint8(0x7F)).max(initial=0) == 0x7F:
            return False
        at = 0
        source, target = torch.from_numpy(raw), torch.from_numpy(out.view(np.int16)).view(torch.bfloat16)
        while at < raw.size:
            row, column = divmod(first + at, columns)
            if column or raw.size - at < columns:
                height, width = 1, min(raw.size - at, columns - column)
            else:
                height, width = min((raw.size - at) // columns, BLOCK - row % BLOCK), columns
            scale = torch.from_numpy(np.repeat(scales[row // BLOCK], BLOCK)[column : column + width])
            end = at + height * width
            rows(source[at:end].view(height, width), scale, target[at:end].view(height, width))
            at = end
        return True

    return run
