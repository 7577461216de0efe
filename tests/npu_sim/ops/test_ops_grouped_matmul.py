# SPDX-License-Identifier: Apache-2.0
"""Grouped products against one row at a time, empty groups included."""

import pytest
import torch
import torch_npu
from hypothesis import given, settings
from hypothesis import strategies as st

COUNTS = st.lists(st.integers(0, 5), min_size=1, max_size=5)


def expected_rows(x, weight, counts):
    group = [g for g, n in enumerate(counts) for _ in range(n)]
    return (
        torch.stack([x[i].double() @ weight[g].double() for i, g in enumerate(group)])
        if group
        else torch.zeros(0, weight.shape[2], dtype=torch.float64)
    )


@settings(max_examples=25, deadline=None)
@given(
    counts=COUNTS,
    spare=st.integers(0, 2),
    cumulative=st.booleans(),
    transposed=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_values(counts, spare, cumulative, transposed, dtype):
    total = sum(counts)
    x, weight = torch.randn(total + spare, 6).to(dtype), torch.randn(len(counts), 6, 4).to(dtype)
    wn = weight.transpose(1, 2).contiguous().npu().transpose(1, 2) if transposed else weight.npu()
    group_list = torch.tensor(counts).cumsum(0) if cumulative else torch.tensor(counts)
    (out,) = torch_npu.npu_grouped_matmul(
        x=[x.npu()],
        weight=[wn],
        split_item=2,
        group_type=0,
        group_list_type=0 if cumulative else 1,
        group_list=group_list.npu(),
    )
    tol = 1e-5 if dtype == torch.float32 else 4e-2
    torch.testing.assert_close(out[:total].cpu().double(), expected_rows(x, weight, counts), rtol=tol, atol=tol)
    assert bool(out[total:].isnan().all())  # rows of no group are undefined on the device: NaN shows who reads them


@settings(max_examples=10, deadline=None)
@given(counts=COUNTS.filter(sum))
def test_gradients(counts):
    x, weight = torch.randn(sum(counts), 6), torch.randn(len(counts), 6, 4)
    xn, wn = x.npu().requires_grad_(), weight.npu().requires_grad_()
    (out,) = torch_npu.npu_grouped_matmul(
        [xn], [wn], split_item=3, group_type=0, group_list_type=1, group_list=torch.tensor(counts).npu()
    )
    grad = torch.randn(sum(counts), 4)
    out.backward(grad.npu())
    xr, wr = x.double().requires_grad_(), weight.double().requires_grad_()
    group = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    torch.einsum("mk,mkn->mn", xr, wr[group]).backward(grad.double())
    torch.testing.assert_close(xn.grad.cpu().double(), xr.grad, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(wn.grad.cpu().double(), wr.grad, rtol=1e-5, atol=1e-5)


def test_list_against_list():
    xs, ws = [torch.randn(2, 3), torch.randn(4, 5)], [torch.randn(3, 2), torch.randn(5, 6)]
    out = torch_npu.npu_grouped_matmul([x.npu() for x in xs], [w.npu() for w in ws])
    for found, x, w in zip(out, xs, ws, strict=True):
        torch.testing.assert_close(found.cpu(), x @ w)


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"bias": [torch.zeros(2, 4)]}, NotImplementedError, "npu_grouped_matmul.*bias"),
        ({"per_token_scale": [torch.zeros(3)]}, NotImplementedError, "npu_grouped_matmul.*per_token_scale"),
        ({"group_type": 2}, NotImplementedError, "npu_grouped_matmul.*group_type=2"),
        ({"split_item": 0}, NotImplementedError, "npu_grouped_matmul.*split_item=0"),
        ({"output_dtype": torch.float16}, NotImplementedError, "npu_grouped_matmul.*output_dtype"),
        ({"act_type": 1}, NotImplementedError, "npu_grouped_matmul.*act_type=1"),
        ({"group_list": [1, 3]}, ValueError, "npu_grouped_matmul: group_list is list"),
        (
            {"group_list": torch.tensor([1, 3], dtype=torch.int32)},
            ValueError,
            "npu_grouped_matmul: group_list is of dtype int32",
        ),
        ({"group_list": torch.tensor([1, 4])}, ValueError, "npu_grouped_matmul: group_list is"),
        ({"group_list": torch.tensor([2, 1])}, ValueError, "npu_grouped_matmul: group_list is"),
        ({"group_list": torch.tensor([1, 2, 3])}, ValueError, "npu_grouped_matmul: group_list is for 3 groups"),
        ({"weight": [torch.zeros(2, 5, 4)]}, ValueError, "npu_grouped_matmul: weight is of shape"),
        ({"weight": [torch.zeros(2, 6, 4, dtype=torch.bfloat16)]}, ValueError, "npu_grouped_matmul: weight is"),
        ({"x": torch.zeros(3, 6)}, ValueError, "npu_grouped_matmul: x is a tensor"),
    ],
)
def test_refuses(changed, error, message):
    arguments = {
        "x": [torch.zeros(3, 6)],
        "weight": [torch.zeros(2, 6, 4)],
        "group_list": torch.tensor([1, 3]),
        "split_item": 2,
        "group_type": 0,
    }

    def move(value):
        if isinstance(value, torch.Tensor):
            return value.npu()
        return [move(v) for v in value] if isinstance(value, list) else value

    with pytest.raises(error, match=message):
        torch_npu.npu_grouped_matmul(**{k: move(v) for k, v in {**arguments, **changed}.items()})
