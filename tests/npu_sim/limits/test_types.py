# SPDX-License-Identifier: Apache-2.0
"""Dtypes that operators of torch and collectives do not take on an NPU, each row with a call that is refused."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch_npu.limits import Level
from torch_npu.limits.fact import OperatorTypes
from torch_npu.limits.table import types


def wide(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.ones(shape, dtype=dtype, device="npu")


def convolution_backward() -> None:
    image = wide(1, 1, 4)
    torch.ops.aten.convolution_backward(
        image, image, wide(1, 1, 1), [0], [1], [0], [1], False, [0], 1, [True, True, False]
    )


CALLS: dict[str, Callable[[], Any]] = {
    "mm": lambda: wide(2, 2) @ wide(2, 2),
    "bmm": lambda: wide(1, 2, 2) @ wide(1, 2, 2),
    "addmm": lambda: F.linear(wide(2, 2), wide(2, 2), wide(2)),
    "baddbmm": lambda: torch.baddbmm(wide(1, 2, 2), wide(1, 2, 2), wide(1, 2, 2)),
    "convolution": lambda: F.conv1d(wide(1, 1, 4), wide(1, 1, 1)),
    "convolution_backward": convolution_backward,
}
ROWS = {limit.operator.removeprefix("aten::"): limit for limit in types() if isinstance(limit, OperatorTypes)}


def test_every_row_has_a_call():
    assert CALLS.keys() == ROWS.keys()


@pytest.mark.parametrize("operator", CALLS)
def test_a_refused_dtype_is_named_with_the_source(operator: str, at_level: Callable[[Level], None]) -> None:
    at_level(Level.STRICT)
    limit = ROWS[operator]
    with pytest.raises(RuntimeError) as refused:
        CALLS[operator]()
    assert str(refused.value).startswith(
        f"aten::{operator}: an NPU takes {limit.documented} ({limit.source}) (found torch."
    )


@pytest.mark.parametrize("dtype", [torch.complex64, torch.int32, torch.bool, torch.float8_e4m3fn])
def test_other_types_are_refused_in_products(dtype: torch.dtype, at_level: Callable[[Level], None]) -> None:
    at_level(Level.STRICT)
    with pytest.raises(RuntimeError, match=f"aten::mm: .*found {dtype}"):
        wide(2, 2, dtype=dtype) @ wide(2, 2, dtype=dtype)


def test_a_tensor_can_be_printed(at_level: Callable[[Level], None]) -> None:
    at_level(Level.STRICT)
    assert "0.5000" in repr(torch.full((2,), 0.5, device="npu"))


def test_the_router_in_float64_is_refused(at_level: Callable[[Level], None]) -> None:
    hidden, weight = wide(4, 8, dtype=torch.bfloat16), wide(2, 8, dtype=torch.bfloat16)
    at_level(Level.STRICT)
    with pytest.raises(RuntimeError, match=r"aten::mm: an NPU takes bfloat16, float16, float32 .*found torch.float64"):
        F.linear(hidden.double(), weight.double())
    F.linear(hidden.float(), weight.float())


def test_off_again_all_is_computed(at_level: Callable[[Level], None]) -> None:
    at_level(Level.STRICT)
    at_level(Level.OFF)
    assert (wide(2, 2) @ wide(2, 2)).tolist() == [[2, 2], [2, 2]]
