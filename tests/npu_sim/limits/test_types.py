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


def turning(*shape: int) -> torch.Tensor:
    return wide(*shape, dtype=torch.complex64)


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
    "addbmm": lambda: torch.addbmm(wide(2, 2), wide(1, 2, 2), wide(1, 2, 2)),
    "vdot": lambda: torch.vdot(wide(2), wide(2)),
    "convolution": lambda: F.conv1d(wide(1, 1, 4), wide(1, 1, 1)),
    "convolution_backward": convolution_backward,
    "amax": lambda: wide(2).amax(),
    "amin": lambda: wide(2).amin(),
    "aminmax": lambda: wide(2).aminmax(),
    "max": lambda: wide(2).max(),
    "min": lambda: wide(2).min(),
    "logsumexp": lambda: wide(2).logsumexp(0),
    "median": lambda: wide(2).median(),
    "var": lambda: wide(2).var(),
    "sort": lambda: wide(2).sort(),
    "kthvalue": lambda: wide(2).kthvalue(1),
    "tanh": lambda: wide(2).tanh(),
    "addcdiv": lambda: torch.addcdiv(wide(2), wide(2), wide(2)),
    "lerp": lambda: torch.lerp(wide(2), wide(2), 0.5),
    "_log_softmax": lambda: F.log_softmax(wide(2), 0),
    "silu": lambda: F.silu(wide(2)),
    "gelu": lambda: F.gelu(wide(2)),
    "relu": lambda: F.relu(wide(2)),
    "native_batch_norm": lambda: F.batch_norm(wide(2, 2), wide(2), wide(2)),
    "nll_loss_forward": lambda: F.nll_loss(wide(1, 2), torch.zeros(1, dtype=torch.int64, device="npu")),
    "softplus": lambda: F.softplus(wide(2)),
    "mish": lambda: F.mish(wide(2)),
    "smooth_l1_loss": lambda: F.smooth_l1_loss(wide(2), wide(2)),
    "sum": lambda: turning(2).sum(),
    "norm": lambda: torch.ops.aten.norm(turning(2), 2),
    "argmax": lambda: turning(2).argmax(),
    "argmin": lambda: turning(2).argmin(),
    "all": lambda: turning(2).all(),
    "any": lambda: turning(2).any(),
    "maximum": lambda: torch.maximum(turning(2), turning(2)),
    "minimum": lambda: torch.minimum(turning(2), turning(2)),
    "topk": lambda: turning(2).topk(1),
    "cumprod": lambda: turning(2).cumprod(0),
    "searchsorted": lambda: torch.searchsorted(turning(2), turning(2)),
    "_softmax": lambda: torch.ops.aten._softmax(turning(2), 0, False),
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


def test_the_router_in_float64_is_refused(at_level: Callable[[Level], None]) -> None:
    hidden, weight = wide(4, 8, dtype=torch.bfloat16), wide(2, 8, dtype=torch.bfloat16)
    at_level(Level.STRICT)
    with pytest.raises(
        RuntimeError, match=r"aten::mm: an NPU takes bfloat16 or float16 or float32 .*found torch.float64"
    ):
        F.linear(hidden.double(), weight.double())
    F.linear(hidden.float(), weight.float())


def test_off_again_all_is_computed(at_level: Callable[[Level], None]) -> None:
    at_level(Level.STRICT)
    at_level(Level.OFF)
    assert (wide(2, 2) @ wide(2, 2)).tolist() == [[2, 2], [2, 2]]
