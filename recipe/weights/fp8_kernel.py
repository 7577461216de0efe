# SPDX-License-Identifier: Apache-2.0
"""The kernel of `recipe.weights.fp8` as LLVM code, compiled for this processor in a tenth of a second at each start.

By llvmlite, which numba compiles with: importing numba itself takes longer than casting a gigabyte, and as much memory
as all the rest; and it has no half precision numbers on processors.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm

from recipe.weights.llvm_code import compile_code

# Moving the 7 bits of exponent and fraction to a half's place gives the value times 2**(7 - 15), subnormal numbers
# included, which every processor with half precision widens at no cost (subnormal float32 would be slow). The NaNs of
# e4m3, 0x7F and 0xFF, are the only bytes whose lower bits plus one carry into the highest.
_CODE = """
declare i64 @llvm.umin.i64(i64, i64)

define zeroext i8 @dequantise(ptr noalias readonly %raw, i64 %size, i64 %first, i64 %columns,
                              ptr noalias readonly %scales, i64 %scale_columns, ptr noalias %out) {
start:
  br label %run

run:  ; of elements that have one scale, up to the end of the block, of the row or of the elements
  %at = phi i64 [0, %start], [%end, %next]
  %seen = phi i8 [0, %start], [%nan, %next]
  %more = icmp ult i64 %at, %size
  br i1 %more, label %scale, label %done

scale:
  %element = add i64 %first, %at
  %row = udiv i64 %element, %columns
  %column = urem i64 %element, %columns
  %block_row = lshr i64 %row, 7
  %block_column = lshr i64 %column, 7
  %before = mul i64 %block_row, %scale_columns
  %block = add i64 %before, %block_column
  %scale_at = getelementptr float, ptr %scales, i64 %block
  %factor = load float, ptr %scale_at
  %next_block = add i64 %block_column, 1
  %block_end = shl i64 %next_block, 7
  %edge = call i64 @llvm.umin.i64(i64 %block_end, i64 %columns)
  %in_row = sub i64 %edge, %column
  %left = sub i64 %size, %at
  %count = call i64 @llvm.umin.i64(i64 %in_row, i64 %left)
  %end = add i64 %at, %count
  br label %each

each:
  %i = phi i64 [%at, %scale], [%i_next, %each]
  %nans = phi i8 [%seen, %scale], [%nan, %each]
  %byte_at = getelementptr i8, ptr %raw, i64 %i
  %byte = load i8, ptr %byte_at
  %lower = and i8 %byte, 127
  %carried = add i8 %lower, 1
  %nan = or i8 %nans, %carried

  %wide = zext i8 %byte to i16
  %sign_bit = and i16 %wide, 128
  %sign = shl i16 %sign_bit, 8
  %magnitude_bits = and i16 %wide, 127
  %magnitude = shl i16 %magnitude_bits, 7
  %half_bits = or i16 %sign, %magnitude
  %half = bitcast i16 %half_bits to half
  %small = fpext half %half to float
  %value = fmul float %small, 256.0
  %product = fmul float %value, %factor

  %bits = bitcast float %product to i32
  %upper = lshr i32 %bits, 16
  %odd = and i32 %upper, 1
  %to_even = add i32 %odd, 32767
  %rounded = add i32 %bits, %to_even
  %upper_rounded = lshr i32 %rounded, 16
  %bfloat = trunc i32 %upper_rounded to i16
  %out_at = getelementptr i16, ptr %out, i64 %i
  store i16 %bfloat, ptr %out_at

  %i_next = add i64 %i, 1
  %again = icmp ult i64 %i_next, %end
  br i1 %again, label %each, label %next

next:
  br label %run

done:
  ret i8 %seen
}
"""


def compile_kernel() -> Callable[[Any, int, int, Any, Any], bool]:
    """`recipe.weights.fp8.dequantise`. Raises ImportError on a processor that does not widen half precision itself."""
    if llvm.get_host_cpu_features().get("f16c") is False:
        raise ImportError("this processor has no half precision")
    engine = compile_code(_CODE)
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    signature = ctypes.CFUNCTYPE(ctypes.c_uint8, pointer, number, number, number, pointer, number, pointer)
    # Calling through ctypes lets go of the GIL.
    function = signature(engine.get_function_address("dequantise"))

    def dequantise(raw: Any, first: int, columns: int, scales: Any, out: Any) -> bool:
        _check(raw, first, columns, scales, out)
        seen = function(raw.ctypes.data, raw.size, first, columns, scales.ctypes.data, scales.shape[1], out.ctypes.data)
        return not seen & 0x80

    # The code lives as long as the engine does.
    dequantise.engine = engine  # type: ignore[attr-defined]
    return dequantise


def _check(raw: Any, first: int, columns: int, scales: Any, out: Any) -> None:
    """Raise ValueError for arrays that the machine code, which checks nothing, would read or write beyond their end."""
    for name, array, dtype in (("raw", raw, "uint8"), ("scales", scales, "float32"), ("out", out, "uint16")):
        if array.dtype != dtype or not array.flags.c_contiguous:
            raise ValueError(f"{name} is {array.dtype}, {dtype} in one piece is needed")
    rows = -(-(first + raw.size) // columns)
    if first < 0 or out.size != raw.size or scales.shape[0] * 128 < rows or scales.shape[1] * 128 < columns:
        raise ValueError(
            f"elements {first} to {first + raw.size} of {columns} columns, with scales {scales.shape}, into {out.size}"
        )
