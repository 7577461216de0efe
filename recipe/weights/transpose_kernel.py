# SPDX-License-Identifier: Apache-2.0
"""The kernel of `recipe.weights.transpose` as LLVM code, compiled at the first use.

Blocks of 8x8 elements of 16 bits, each eight vector loads, three rounds of interleaving and eight stores. Four blocks
below each other are done in turn: their rows then fill whole cache lines of the output.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from typing import Any

from recipe.weights.llvm_code import compile_code

# Elements of the first and of the second vector by turns, from the first half of each and from the second.
_LOW, _HIGH = (", ".join(f"i32 {n + i}, i32 {n + i + 8}" for i in range(4)) for n in (0, 4))


def _block() -> Iterator[str]:
    """Code for the block at row %row and column %column."""
    for j in range(8):
        yield f"%row{j} = add i64 %row, {j}"
        yield f"%before{j} = mul i64 %row{j}, %stride"
        yield f"%from{j} = add i64 %before{j}, %column"
        yield f"%source{j} = getelementptr i16, ptr %matrix, i64 %from{j}"
        yield f"%v0_{j} = load <8 x i16>, ptr %source{j}, align 2"
    for stage in range(3):
        for j in range(4):
            pair = f"<8 x i16> %v{stage}_{j}, <8 x i16> %v{stage}_{j + 4}"
            yield f"%v{stage + 1}_{2 * j} = shufflevector {pair}, <8 x i32> <{_LOW}>"
            yield f"%v{stage + 1}_{2 * j + 1} = shufflevector {pair}, <8 x i32> <{_HIGH}>"
    for j in range(8):
        yield f"%column{j} = add i64 %column, {j}"
        yield f"%above{j} = mul i64 %column{j}, %rows"
        yield f"%to{j} = add i64 %above{j}, %row"
        yield f"%target{j} = getelementptr i16, ptr %out, i64 %to{j}"
        yield f"store <8 x i16> %v3_{j}, ptr %target{j}, align 2"


_CODE = """
define void @columns_as_rows(ptr noalias readonly %matrix, i64 %rows, i64 %stride, i64 %columns, ptr noalias %out) {
start:
  br label %strips

strips:
  %strip = phi i64 [0, %start], [%next_strip, %end_strip]
  %strips_left = icmp ult i64 %strip, %rows
  br i1 %strips_left, label %columns_of, label %done

columns_of:
  %column = phi i64 [0, %strips], [%next_column, %end_column]
  %columns_left = icmp ult i64 %column, %columns
  br i1 %columns_left, label %blocks, label %end_strip

blocks:
  %in_strip = phi i64 [0, %columns_of], [%next_block, %blocks]
  %row = add i64 %strip, %in_strip
  BLOCK
  %next_block = add i64 %in_strip, 8
  %blocks_left = icmp ult i64 %next_block, 32
  br i1 %blocks_left, label %blocks, label %end_column

end_column:
  %next_column = add i64 %column, 8
  br label %columns_of

end_strip:
  %next_strip = add i64 %strip, 32
  br label %strips

done:
  ret void
}
"""


def compile_kernel() -> Callable[[Any, int, Any], None]:
    """`recipe.weights.transpose.columns_as_rows` for sizes that are multiples of its ROWS and COLUMNS."""
    engine = compile_code(_CODE.replace("BLOCK", "\n  ".join(_block())))
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    # Calling through ctypes lets go of the GIL.
    function = ctypes.CFUNCTYPE(None, pointer, number, number, number, pointer)(
        engine.get_function_address("columns_as_rows")
    )

    def columns_as_rows(matrix: Any, first: int, out: Any) -> None:
        rows, stride = matrix.shape
        function(matrix.ctypes.data + 2 * first, rows, stride, len(out), out.ctypes.data)

    # The code lives as long as the engine does.
    columns_as_rows.engine = engine  # type: ignore[attr-defined]
    return columns_as_rows
