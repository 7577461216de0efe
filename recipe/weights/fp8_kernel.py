# SPDX-License-Identifier: Apache-2.0
"""The numba kernel of `recipe.weights.fp8`; importing it costs numba (100 MiB), so only `fp8` does, when it is used."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from recipe.weights.compiled import compiled


def _lower(_: Any, byte: Any, scale: Any) -> Any:
    """e4m3 byte (uint8) times scale (float32), as the bits of a bfloat16 (uint16), rounded to nearest even.

    Moving the 7 bits of exponent and fraction to a half's place gives the value times 2**(7 - 15), subnormal numbers
    included, which every processor with half precision widens at no cost (subnormal float32 would be slow). As LLVM,
    because numba has no halves on processors, and widens arithmetic on uint32 to 64 bits, at half the speed.
    """
    signature = types.uint16(types.uint8, types.float32)

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        byte, scale = arguments
        short, word, single = ir.IntType(16), ir.IntType(32), ir.FloatType()
        wide = builder.zext(byte, short)
        sign = builder.shl(builder.and_(wide, short(0x80)), short(8))
        magnitude = builder.shl(builder.and_(wide, short(0x7F)), short(7))
        half = builder.bitcast(builder.or_(sign, magnitude), ir.HalfType())
        value = builder.fmul(builder.fpext(half, single), single(2.0**8))
        bits = builder.bitcast(builder.fmul(value, scale), word)
        even = builder.and_(builder.lshr(bits, word(16)), word(1))
        rounded = builder.add(bits, builder.add(word(0x7FFF), even))
        return builder.trunc(builder.lshr(rounded, word(16)), short)

    return signature, generate


_convert: Any = intrinsic(_lower)


@compiled("uint8(uint8[::1],int64,int64,float32[:,::1],uint16[::1])")
def dequantise(raw: Any, first: int, columns: int, scales: Any, out: Any) -> Any:
    """See `recipe.weights.fp8.dequantise`; returns a number with bit 0x80 set where a byte is NaN."""
    size = raw.size
    seen = np.uint8(0)
    at = 0
    while at < size:
        row, column = divmod(first + at, columns)
        scale = scales[np.uint64(row >> 7), np.uint64(column >> 7)]
        count = min(size - at, min(((column >> 7) + 1) << 7, columns) - column)
        start = np.uint64(at)
        for i in range(np.uint64(count)):
            byte = raw[start + i]
            out[start + i] = _convert(byte, scale)
            # 0x7F and 0xFF are the NaNs of e4m3: only they carry into the highest bit.
            seen |= np.uint8(np.uint8(byte & np.uint8(0x7F)) + np.uint8(1))
        at += count
    return seen
