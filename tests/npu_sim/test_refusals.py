# SPDX-License-Identifier: Apache-2.0
"""Tables of refused dtypes: what they name is refused before anything is computed, and nothing else is."""

import warnings

import pytest
import torch
from torch_npu import _sim

WIDE = torch.ones(2, 2, dtype=torch.float64, device="npu")
NARROW = torch.ones(2, 2, device="npu")


@pytest.fixture(autouse=True)
def empty_tables():
    _sim.clear_refusals()
    yield
    _sim.clear_refusals()


def test_the_error_says_what_was_found_and_where():
    _sim.refuse_dtypes("aten::mm", [torch.float64, torch.complex64], "mm knows no float64")
    with pytest.raises(RuntimeError, match=r"^mm knows no float64 \(found torch\.float64 as self in aten::mm\)$"):
        torch.mm(WIDE, WIDE)
    with pytest.raises(RuntimeError, match=r"found torch\.complex64 as self in aten::mm\.out\)"):
        torch.mm(NARROW.to(torch.complex64), NARROW.to(torch.complex64), out=NARROW.to(torch.complex64))
    assert torch.mm(NARROW, NARROW).tolist() == [[2, 2], [2, 2]]  # other dtypes
    assert torch.bmm(WIDE[None], WIDE[None])[0, 0, 0] == 2  # other operators
    assert torch.mm(WIDE.cpu(), WIDE.cpu())[0, 0] == 2  # other devices


def test_nothing_is_computed_before_the_refusal():
    _sim.refuse_dtypes("aten::add_", [torch.float64], "no")
    x = WIDE.clone()
    with pytest.raises(RuntimeError, match="no"):
        x.add_(1)
    assert x.tolist() == [[1, 1], [1, 1]]


@pytest.mark.parametrize(
    ("operator", "call"),
    [
        pytest.param("aten::mm", lambda: torch.nn.functional.linear(WIDE, WIDE), id="composite"),
        pytest.param("aten::mm.out", lambda: torch.mm(WIDE, WIDE, out=WIDE.clone()), id="overload"),
        pytest.param("aten::cat", lambda: torch.cat([NARROW, WIDE]), id="list"),
        pytest.param("aten::index", lambda: NARROW[WIDE > 0, None], id="optional_list"),
        pytest.param("aten::convolution", lambda: torch.conv1d(WIDE[None], WIDE[None]), id="convolution"),
        pytest.param("aten::native_dropout", lambda: torch.native_dropout(WIDE, 0.5, True), id="dropout"),
        pytest.param("aten::_local_scalar_dense", lambda: WIDE[0, 0].item(), id="item"),
        pytest.param("aten::_copy_from", lambda: WIDE.cpu(), id="copy"),
    ],
)
def test_operators_of_every_kind_are_refused(operator, call):
    call()
    _sim.refuse_dtypes(operator, [torch.float64, torch.bool], "stated")
    with pytest.raises(RuntimeError, match=rf"^stated \(found torch\.\w+ as \w+ in {operator}"):
        call()


def test_the_backward_pass_is_refused_too():
    x = WIDE[None].clone().requires_grad_()
    y = torch.conv1d(x, WIDE[None]).sum()
    _sim.refuse_dtypes("aten::convolution_backward", [torch.float64], "no gradient in float64")
    with pytest.raises(RuntimeError, match="no gradient in float64"):
        y.backward()


def test_one_argument_can_be_named():
    _sim.refuse_dtypes("aten::index_select", [torch.int64], "indices in 32 bits", arguments=["index"])
    zero = torch.tensor([0], device="npu")
    with pytest.raises(RuntimeError, match=r"found torch\.int64 as index in aten::index_select"):
        torch.nn.functional.embedding(zero, NARROW)
    assert torch.nn.functional.embedding(zero.int(), NARROW).tolist() == [[1, 1]]
    assert torch.index_select(zero, 0, zero.int()).tolist() == [0]


def test_a_warning_is_given_once_and_the_operator_runs():
    _sim.refuse_dtypes("aten::mm", [torch.float64], "not documented", warn=True)
    with pytest.warns(UserWarning, match=r"not documented \(found torch\.float64 as self in aten::mm\)"):
        assert torch.mm(WIDE, WIDE)[0, 0] == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torch.mm(WIDE, WIDE)


@pytest.mark.parametrize(
    ("operator", "arguments", "message"),
    [
        ("aten::nothing", [], "torch has no operator aten::nothing"),
        ("aten::linear", [], "never reaches the device under this name"),
        ("aten::view", [], "never reaches the device under this name"),
        ("aten::mm", ["weight"], "aten::mm has no argument 'weight'"),
    ],
)
def test_a_refusal_that_could_not_be_met_is_an_error(operator, arguments, message):
    with pytest.raises(ValueError, match=message):
        _sim.refuse_dtypes(operator, [torch.float64], "", arguments=arguments)


def test_unknown_collectives_and_reductions_are_errors():
    with pytest.raises(ValueError, match="hccl has no collective 'all_reduce'"):
        _sim.refuse_collective("all_reduce", [], [], "")
    with pytest.raises(ValueError, match="there is no ReduceOp.MEAN"):
        _sim.refuse_collective("allreduce", [], ["MEAN"], "")
