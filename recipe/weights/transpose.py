# SPDX-License-Identifier: Apache-2.0
"""Columns of a matrix as the rows of another, a panel at a time.

A compiled kernel does this for elements of 16 bits, where llvmlite is there and the sizes are multiples of its blocks,
as a real model's are; numpy does it otherwise. Both give the same bits.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recipe.weights.compiled import compiled

# The sizes must be multiples of these for the kernel.
ROWS, COLUMNS = 32, 8
Kernel = Callable[[NDArray[np.uint16], int, NDArray[np.uint16]], None]


def columns_as_rows(matrix: NDArray[Any], first: int, out: NDArray[Any]) -> None:
    """out[i] = matrix[:, first + i] for every i.

    matrix: [R, C] contiguous, unsigned integers of any width; out: [c, R] contiguous, of the same type. The GIL is
    released meanwhile. Raises ValueError for shapes that do not fit together.
    """
    count, rows = out.shape
    if rows != matrix.shape[0] or first < 0 or first + count > matrix.shape[1] or matrix.dtype != out.dtype:
        raise ValueError(
            f"columns {first} to {first + count} of {matrix.dtype} {matrix.shape} as rows of {out.dtype} {out.shape}"
        )
    straight = matrix.flags.c_contiguous and out.flags.c_contiguous
    if straight and matrix.dtype == np.uint16 and (kernel := _kernel(rows, count)) is not None:
        kernel(matrix, first, out)
    else:
        out[...] = matrix[:, first : first + count].T


_INSTEAD = "experts are transposed by numpy, a tenth as fast on each core"
_compiled: list[Kernel | None] = []
_compiling = threading.Lock()


def _kernel(rows: int, columns: int) -> Kernel | None:
    """The kernel, compiled at the first call; None for sizes that it does not know, and where llvmlite fails."""
    if rows % ROWS or columns % COLUMNS:
        return None
    with _compiling:
        if not _compiled:
            _compiled.append(compiled(_llvm_kernel, _INSTEAD))
    return _compiled[0]


def _llvm_kernel() -> Kernel:
    from recipe.weights import transpose_kernel

    return transpose_kernel.compile_kernel()
