# SPDX-License-Identifier: Apache-2.0
"""Columns of a matrix as the rows of another, a panel at a time.

By a numba kernel for 16-bit elements where the sizes are multiples of its tile, as a real model's are, and by numpy
otherwise; both give the same bits.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray


def columns_as_rows(matrix: NDArray[Any], first: int, out: NDArray[Any]) -> None:
    """out[i] = matrix[:, first + i] for every i.

    matrix: [R, C] contiguous, unsigned integers of any width; out: [c, R] contiguous, of the same type. The GIL is
    released meanwhile.
    """
    if matrix.itemsize == 2 and _kernel() is not None:
        kernel = _kernel()
        rows, step = kernel.TILE_ROWS, 4 * kernel.TILE_WORDS
        if not (matrix.shape[0] % rows or out.shape[0] % step or matrix.shape[1] % 4 or first % 4):
            kernel.columns_as_rows(matrix.view(np.uint64), first // 4, out.view(np.uint64))
            return
    out[...] = matrix[:, first : first + len(out)].T


_loaded: list[Any] = []


def _kernel() -> Any:
    """The module of the kernel, None without numba or where words hold their bytes the other way round."""
    if not _loaded:
        try:
            from recipe.weights import transpose_kernel
        except ImportError:
            _loaded.append(None)
        else:
            _loaded.append(transpose_kernel if sys.byteorder == "little" else None)
    return _loaded[0]
