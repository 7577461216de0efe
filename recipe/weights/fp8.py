# SPDX-License-Identifier: Apache-2.0
"""FP8 e4m3 with one float32 scale for every block of 128x128 elements, to bfloat16.

The value is float32(byte) * scale in float32, rounded to bfloat16 to nearest even, as in DeepSeek's published
weight_dequant. Done by code that LLVM compiles for the processor, or by torch where that cannot be had; both give the
same bits.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recipe.weights.compiled import compiled
from recipe.weights.errors import WeightsError

BLOCK = 128
# Elements that the torch kernel takes at a time.
_TORCH_PANEL = 128 * 1024

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


_INSTEAD = "FP8 is cast by torch, a quarter as fast on each core and with some hundred MiB more memory"
_chosen: list[Kernel] = []
_choosing = threading.Lock()


def kernel() -> Kernel:
    """The kernel that `dequantise` uses; the first call compiles it, or imports torch and says why on stderr.

    Raises WeightsError where there is neither.
    """
    with _choosing:
        if not _chosen:
            _chosen.append(compiled(llvm_kernel, _INSTEAD) or torch_kernel())
    return _chosen[0]


def llvm_kernel() -> Kernel:
    """`dequantise` by LLVM. Raises ImportError, OSError or RuntimeError where llvmlite cannot be used."""
    from recipe.weights import fp8_kernel

    return fp8_kernel.compile_kernel()


def torch_kernel() -> Kernel:
    """`dequantise` by torch, a few rows at a time so that the passes over them stay in the cache."""
    try:
        import torch
    except ImportError as error:
        raise WeightsError(f"FP8 is cast with llvmlite or with torch, and torch is missing too ({error})") from None

    scratch = threading.local()

    def buffers(size: int) -> tuple[Any, Any]:
        """int16 and float32 of `size` elements, kept for the thread: fresh memory costs more than the arithmetic."""
        if getattr(scratch, "size", 0) < size:
            scratch.pair = torch.empty(size, dtype=torch.int16), torch.empty(size, dtype=torch.float32)
            scratch.size = size
        halves, singles = scratch.pair
        return halves[:size], singles[:size]

    def run(
        raw: NDArray[np.uint8], first: int, columns: int, scales: NDArray[np.float32], out: NDArray[np.uint16]
    ) -> bool:
        source, target = torch.from_numpy(raw), torch.from_numpy(out.view(np.int16)).view(torch.bfloat16)
        for begin, height, width in _rectangles(raw.size, first, columns):
            panel = slice(begin, begin + height * width)
            halves, singles = buffers(height * width)
            # Sign, four bits of exponent and three of fraction in a half's places: the value times 2**(7 - 15).
            halves.copy_(source[panel].view(torch.int8)).mul_(2**7).bitwise_and_(0xBFFF - 2**16)
            if int((halves & 0x3FFF).max()) == 0x7F << 7:
                return False
            row, column = divmod(first + begin, columns)
            scale = torch.from_numpy(np.repeat(scales[row // BLOCK], BLOCK)[column : column + width])
            singles.copy_(halves.view(torch.float16)).mul_(2.0**8)
            torch.mul(singles.view(height, width), scale, out=singles.view(height, width))
            target[panel].copy_(singles)
        return True

    return run


def _rectangles(size: int, first: int, columns: int) -> Iterator[tuple[int, int, int]]:
    """Cut a run of elements into (begin, rows, columns) that lie in one row of blocks each, in order."""
    at = 0
    while at < size:
        row, column = divmod(first + at, columns)
        if column or size - at < columns:
            height, width = 1, min(size - at, columns - column)
        else:
            few = max(1, _TORCH_PANEL // columns)
            height, width = min((size - at) // columns, BLOCK - row % BLOCK, few), columns
        yield at, height, width
        at += height * width
