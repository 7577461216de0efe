# SPDX-License-Identifier: Apache-2.0
"""Each row of the table of limits of fused operators is refused, and what is inside all limits of one is not."""

import contextlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch_npu
from torch_npu.limits import Level, Refused
from torch_npu.limits.fact import CallLimit
from torch_npu.limits.table import TABLE
from torch_npu.ops import ATB, PUBLIC, mindspeed_jit

from tests.npu_sim.limits.probes import INSIDE, OUTSIDE

CALL_LIMITS = [fact for fact in TABLE if isinstance(fact, CallLimit)]
ROWS = {(fact.operator, fact.argument, fact.documented): fact for fact in CALL_LIMITS}


@pytest.fixture(autouse=True)
def private_formats() -> Iterator[None]:
    """torch.npu.config.allow_internal_format, without which no private format is inside the limits."""
    torch.npu.config.allow_internal_format = True
    yield
    torch.npu.config.allow_internal_format = False


def operator(name: str) -> Callable[..., Any]:
    """By the name that calls are counted under."""
    library, _, plain = name.rpartition(".")
    if library != "mindspeed":
        return (ATB if library else PUBLIC)[plain]
    modules = [build() for build in mindspeed_jit.MODULES.values()]
    return next(getattr(module, plain) for module in modules if hasattr(module, plain))


def call(name: str, arguments: dict[str, Any]) -> None:
    """Call an operator. Those that send tokens end where they look for their group, which comes after the limits."""
    group = "group_ep" in arguments
    with pytest.raises(RuntimeError, match="is not initialised") if group else contextlib.nullcontext():
        operator(name)(**arguments)


def test_every_row_has_a_call_that_breaks_it():
    assert len(ROWS) == len(CALL_LIMITS), "two rows say the same"
    assert OUTSIDE.keys() == ROWS.keys()
    assert INSIDE.keys() == {fact.operator for fact in CALL_LIMITS}


@pytest.mark.parametrize(
    ("row", "name"),
    [(row, name) for row in OUTSIDE for name in row[1].split(", ")],
    ids=lambda part: part if isinstance(part, str) else f"{part[0]}: {part[2]}",
)
def test_a_call_outside_is_refused(row: tuple[str, str, str], name: str, at_level: Callable[[Level], None]) -> None:
    """Each argument that a row names, alone; the row's other arguments are inside."""
    fact = ROWS[row]
    broken = OUTSIDE[row]()
    others = set(fact.argument.split(", ")) - {name}
    arguments = INSIDE[fact.operator]() | {key: value for key, value in broken.items() if key not in others}
    at_level(Level.STRICT)
    if fact.only_warns:
        reason = fact.contradiction or "no document says so"
        with pytest.warns(UserWarning) as warned, contextlib.suppress(ValueError, NotImplementedError):
            call(fact.operator, arguments)
        text = "\n".join(str(one.message) for one in warned)
        assert f"{fact.operator}: {name} is " in text and reason in text
        return
    with pytest.raises(Refused) as refused:
        operator(fact.operator)(**arguments)
    assert str(refused.value).startswith(f"{fact.operator}: {name} is ")
    assert fact.documented in str(refused.value) and str(fact.source) in str(refused.value)


@pytest.mark.parametrize("name", INSIDE)
def test_a_call_inside_is_taken(name: str, at_level: Callable[[Level], None]) -> None:
    arguments = INSIDE[name]()
    at_level(Level.STRICT)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        call(name, arguments)


@pytest.mark.parametrize("name", sorted({fact.operator for fact in CALL_LIMITS if fact.half_types_only}))
def test_float32_passes_for_comparisons(name: str, at_level: Callable[[Level], None]) -> None:
    """The same call in float32 is refused at the strict level only."""

    def float32(value: Any) -> Any:
        if isinstance(value, list):
            return [float32(item) for item in value]
        return value.float() if isinstance(value, torch.Tensor) and value.dtype == torch.bfloat16 else value

    arguments = {key: float32(value) for key, value in INSIDE[name]().items()}
    at_level(Level.STRICT)
    with pytest.raises(Refused, match="float32"):
        operator(name)(**arguments)
    at_level(Level.FLOAT32)
    call(name, arguments)


def test_nothing_but_rows_is_refused_when_off(at_level: Callable[[Level], None]) -> None:
    """The tiny model's sizes: what the arithmetic can do without is no error in the operators themselves."""
    at_level(Level.OFF)
    x = torch.ones(2, 1, 1, 6, device="npu")
    torch_npu.npu_interleave_rope(x, x, x)
    torch_npu.npu_moe_gating_top_k(x.view(2, 6), 2, k_group=1, group_count=3, group_select_mode=1)
