# SPDX-License-Identifier: Apache-2.0
"""The numba kernel of `recipe.weights.transpose`; importing it costs numba, so only `transpose` does, when it is used.

Elements of 16 bits are moved four by four in 64-bit words, in tiles that are copied to the stack first: the rows of a
matrix as wide as a power of two would otherwise push each other out of the cache.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from recipe.weights.compiled import compiled

# Of the tile, in rows and in words of four columns.
TILE_ROWS = 64
TILE_WORDS = 8


@compiled("void(uint64[:,::1],int64,uint64[:,::1])")
def columns_as_rows(matrix: Any, first: int, out: Any) -> None:
    """Words [first, first + len(out) / 4) of each row of `matrix` [R, C/4], transposed, into `out` [c, R/4].

    R is a multiple of TILE_ROWS and len(out) of 4 * TILE_WORDS.
    """
    rows = matrix.shape[0]
    even, odd = np.uint64(0x0000FFFF0000FFFF), np.uint64(0xFFFF0000FFFF0000)
    low, high = np.uint64(0x00000000FFFFFFFF), np.uint64(0xFFFFFFFF00000000)
    one, two = np.uint64(16), np.uint64(32)
    tile = np.empty((TILE_ROWS, TILE_WORDS), np.uint64)
    turned = np.empty((4 * TILE_WORDS, TILE_ROWS // 4), np.uint64)
    for row in range(0, rows, TILE_ROWS):
        for word in range(0, out.shape[0] // 4, TILE_WORDS):
            for r in range(TILE_ROWS):
                for w in range(TILE_WORDS):
                    tile[r, w] = matrix[row + r, first + word + w]
            for k in range(TILE_ROWS // 4):
                for w in range(TILE_WORDS):
                    a, b, c, d = tile[4 * k, w], tile[4 * k + 1, w], tile[4 * k + 2, w], tile[4 * k + 3, w]
                    ab_even = (a & even) | ((b & even) << one)
                    ab_odd = ((a >> one) & even) | (b & odd)
                    cd_even = (c & even) | ((d & even) << one)
                    cd_odd = ((c >> one) & even) | (d & odd)
                    turned[4 * w, k] = (ab_even & low) | (cd_even << two)
                    turned[4 * w + 1, k] = (ab_odd & low) | (cd_odd << two)
                    turned[4 * w + 2, k] = (ab_even >> two) | (cd_even & high)
                    turned[4 * w + 3, k] = (ab_odd >> two) | (cd_odd & high)
            for c in range(4 * TILE_WORDS):
                for k in range(TILE_ROWS // 4):
                    out[4 * word + c, row // 4 + k] = turned[c, k]
