# SPDX-License-Identifier: Apache-2.0
"""Each row of the table of limits is refused, and what is inside all limits of an operator is not."""

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch_npu
from torch import Tensor
from torch_npu.limits import Level, Refused
from torch_npu.limits.table import TABLE

Arguments = dict[str, Any]


def half(*shape: int) -> Tensor:
    """A bfloat16 tensor on the device."""
    return torch.ones(shape, dtype=torch.bfloat16, device="npu")


def strided(*shape: int) -> Tensor:
    """A bfloat16 tensor whose rows lie twice as far apart as they are long."""
    return half(*shape[:-1], 2 * shape[-1])[..., : shape[-1]]


def interleave_rope() -> Arguments:
    return {"x": half(2, 4, 1, 64), "cos": half(2, 1, 1, 64), "sin": half(2, 1, 1, 64)}


INSIDE: dict[str, Callable[[], Arguments]] = {"npu_interleave_rope": interleave_rope}
"""Operator -> arguments that an NPU takes."""

_ROPE = {"x": (2, 4, 1), "cos": (2, 1, 1), "sin": (2, 1, 1)}
OUTSIDE: dict[tuple[str, str, str], Callable[[], Arguments]] = {
    **{
        ("npu_interleave_rope", name, "bfloat16 or float16"): (lambda n=name, s=shape: {n: half(*s, 64).float()})
        for name, shape in _ROPE.items()
    },
    **{
        ("npu_interleave_rope", name, "a contiguous tensor"): (lambda n=name, s=shape: {n: strided(*s, 64)})
        for name, shape in _ROPE.items()
    },
    **{
        ("npu_interleave_rope", name, "a last dimension of 64"): (lambda n=name, s=shape: {n: half(*s, 32)})
        for name, shape in _ROPE.items()
    },
}
"""Row (operator, argument, what is documented) -> the arguments that break this limit; the others are INSIDE's."""

ROWS = {(fact.operator, fact.argument, fact.documented): fact for fact in TABLE}


def test_every_row_has_a_call_that_breaks_it():
    assert len(ROWS) == len(TABLE), "two rows say the same"
    assert OUTSIDE.keys() == ROWS.keys()


@pytest.mark.parametrize("row", OUTSIDE, ids=" ".join)
def test_a_call_outside_is_refused(row: tuple[str, str, str], at_level: Callable[[Level], None]) -> None:
    at_level(Level.STRICT)
    fact = ROWS[row]
    arguments = INSIDE[fact.operator]() | OUTSIDE[row]()
    call = getattr(torch_npu, fact.operator)
    if fact.source is None:
        with pytest.warns(UserWarning, match="no document says so"):
            call(**arguments)
        return
    with pytest.raises(Refused) as refused:
        call(**arguments)
    assert str(refused.value).startswith(f"{fact.operator}: {fact.argument} is ")
    assert fact.documented in str(refused.value) and str(fact.source) in str(refused.value)


@pytest.mark.parametrize("operator", INSIDE)
def test_a_call_inside_is_taken(operator: str, at_level: Callable[[Level], None]) -> None:
    at_level(Level.STRICT)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        getattr(torch_npu, operator)(**INSIDE[operator]())
