# SPDX-License-Identifier: Apache-2.0
"""Norms and activations against row-by-row formulas in float64."""

import math

import pytest
import torch
import torch_npu
from hypothesis import given, settings
from hypothesis import strategies as st

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 1.6e-2, torch.float16: 2e-3}


def reference_norm(x, gamma, eps):
    """One row at a time, in float64."""
    rows = [
        row / math.sqrt(float(row @ row) / row.numel() + eps) * gamma for row in x.double().reshape(-1, x.shape[-1])
    ]
    return torch.stack(rows).view(x.shape) if rows else x.double()


def close(found, expected, dtype):
    torch.testing.assert_close(found.cpu().double(), expected.double(), rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(5, 16), (2, 3, 8), (1, 128), (0, 8)])
def test_rms_norm(dtype, shape):
    x, gamma = torch.randn(shape).to(dtype), torch.rand(shape[-1]).to(dtype)
    y, rstd = torch_npu.npu_rms_norm(x.npu(), gamma.npu(), 1e-5)
    assert y.dtype == dtype and rstd.dtype == torch.float32 and rstd.shape == (*shape[:-1], 1)
    close(y, reference_norm(x, gamma.double(), 1e-5), dtype)


def test_rms_norm_rounds_before_gamma():
    # The half kernels round x * rstd to the input's dtype first, as Hugging Face does; 1 ulp tells.
    x, gamma = torch.randn(64, 128).bfloat16(), torch.rand(128).bfloat16()
    wide = x.float()
    normed = (wide * torch.rsqrt((wide * wide).mean(-1, keepdim=True) + 1e-6)).bfloat16()
    assert torch.equal(torch_npu.npu_rms_norm(x.npu(), gamma.npu(), 1e-6)[0].cpu(), gamma * normed)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rms_norm_with_a_float32_gamma(dtype):
    x, gamma = torch.randn(5, 16).to(dtype), torch.rand(16)
    y, _ = torch_npu.npu_rms_norm(x.npu(), gamma.npu(), 1e-5)
    assert y.dtype == dtype
    close(y, reference_norm(x, gamma.double(), 1e-5), dtype)


def test_rms_norm_gradients():
    x, gamma, grad = torch.randn(6, 16), torch.rand(16), torch.randn(6, 16)
    xn, gn = x.npu().requires_grad_(), gamma.npu().requires_grad_()
    torch_npu.npu_rms_norm(xn, gn, 1e-5)[0].backward(grad.npu())
    xr, gr = x.double().requires_grad_(), gamma.double().requires_grad_()
    reference_norm(xr.detach(), gr.detach(), 1e-5)
    norm = (xr.pow(2).sum(-1) / 16 + 1e-5).sqrt().unsqueeze(-1)
    (xr / norm * gr).backward(grad.double())
    torch.testing.assert_close(xn.grad.cpu().double(), xr.grad, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gn.grad.cpu().double(), gr.grad, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
def test_add_rms_norm(dtype):
    x1, x2, gamma = torch.randn(7, 32).to(dtype), torch.randn(7, 32).to(dtype), torch.rand(32).to(dtype)
    y, _, total = torch_npu.npu_add_rms_norm(x1.npu(), x2.npu(), gamma.npu(), 1e-6)
    assert torch.equal(total.cpu(), x1 + x2)
    close(y, reference_norm(x1 + x2, gamma.double(), 1e-6), dtype)


def test_add_rms_norm_gradient():
    x1, x2 = torch.randn(3, 8).npu().requires_grad_(), torch.randn(3, 8).npu().requires_grad_()
    y, _, total = torch_npu.npu_add_rms_norm(x1, x2, torch.ones(8).npu(), 1e-6)
    (y.sum() + 2 * total.sum()).backward()
    s = (x1 + x2).detach().cpu().double().requires_grad_()
    ((s / (s.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt()).sum() + 2 * s.sum()).backward()
    for x in (x1, x2):
        torch.testing.assert_close(x.grad.cpu().double(), s.grad, rtol=1e-5, atol=1e-5)


def test_norm_refuses():
    x, gamma = torch.randn(2, 8).npu(), torch.ones(8).npu()
    with pytest.raises(ValueError, match=r"npu_rms_norm: gamma is of shape \(4,\)"):
        torch_npu.npu_rms_norm(x, gamma[:4])
    with pytest.raises(ValueError, match="npu_rms_norm: gamma is of dtype"):
        torch_npu.npu_rms_norm(x, gamma.bfloat16())
    with pytest.raises(ValueError, match="npu_rms_norm: x is of dtype float64"):
        torch_npu.npu_rms_norm(x.double(), gamma.double())
    with pytest.raises(ValueError, match="npu_add_rms_norm: x2 is of shape"):
        torch_npu.npu_add_rms_norm(x, x[:1], gamma)


@settings(max_examples=25, deadline=None)
@given(rows=st.integers(0, 9), half=st.integers(1, 40), strided=st.booleans())
def test_swiglu(rows, half, strided):
    x = torch.randn(rows, 4 * half)[:, :: 2 if strided else 1][:, : 2 * half]
    y = torch_npu.npu_swiglu(x.npu()[:, :])
    gate, up = x[:, :half].double(), x[:, half:].double()
    close(y, gate / (1 + (-gate).exp()) * up, torch.float32)


@pytest.mark.parametrize("dtype", DTYPES)
def test_swiglu_dim_dtype_gradient(dtype):
    x = torch.randn(4, 6, 3).to(dtype)
    xn = x.npu().requires_grad_()
    y = torch_npu.npu_swiglu(xn, dim=1)
    grad = torch.randn(4, 3, 3).to(dtype)
    y.backward(grad.npu())
    xr = x.double().requires_grad_()
    expected = xr[:, :3] * torch.sigmoid(xr[:, :3]) * xr[:, 3:]
    expected.backward(grad.double())
    close(y.detach(), expected.detach(), dtype)
    close(xn.grad, xr.grad, dtype)


def test_swiglu_refuses():
    with pytest.raises(ValueError, match="npu_swiglu: self is of shape"):
        torch_npu.npu_swiglu(torch.randn(2, 3).npu())
    with pytest.raises(ValueError, match="npu_swiglu: self is of dtype int64"):
        torch_npu.npu_swiglu(torch.ones(2, 4, dtype=torch.int64).npu())


@pytest.mark.parametrize("dtype", DTYPES)
def test_fast_gelu(dtype):
    x = torch.randn(5, 9).to(dtype)
    wide = x.double()
    close(
        torch_npu.npu_fast_gelu(x.npu()),
        wide / (1 + torch.exp(-1.702 * wide.abs())) * torch.exp(0.851 * (wide - wide.abs())),
        dtype,
    )
    with pytest.raises(ValueError, match="npu_fast_gelu: self"):
        torch_npu.npu_fast_gelu(x.npu().int())


@pytest.mark.parametrize("fixed", [False, True])
def test_scaled_masked_softmax(fixed):
    x = torch.randn(2, 3, 4, 4)
    mask = torch.rand(2, 1, 4, 4) > 0.6
    xn = x.npu().requires_grad_()
    y = torch_npu.npu_scaled_masked_softmax(xn, mask.npu(), 0.5, fixed)
    y.backward(torch.arange(4.0).expand_as(y).npu())
    xr = x.double().requires_grad_()
    hidden = torch.tensor([[j > i for j in range(4)] for i in range(4)]) if fixed else mask
    scores = torch.where(hidden, torch.tensor(-10000.0, dtype=torch.float64), 0.5 * xr)
    e = torch.exp(scores - scores.max(-1, keepdim=True).values)
    expected = e / e.sum(-1, keepdim=True)
    expected.backward(torch.arange(4.0).double().expand_as(expected))
    close(y.detach(), expected.detach(), torch.float32)
    close(xn.grad, xr.grad, torch.float32)


def test_scaled_masked_softmax_refuses():
    x = torch.randn(2, 3, 4, 4).npu()
    with pytest.raises(ValueError, match="npu_scaled_masked_softmax: mask is of dtype"):
        torch_npu.npu_scaled_masked_softmax(x, x, 1.0, False)
    with pytest.raises(ValueError, match="npu_scaled_masked_softmax: mask is of shape"):
        torch_npu.npu_scaled_masked_softmax(x, torch.zeros(2, 2, 4, 4, dtype=torch.bool).npu(), 1.0, False)
    with pytest.raises(ValueError, match="npu_scaled_masked_softmax: x is 3-dimensional"):
        torch_npu.npu_scaled_masked_softmax(x[0], x[0] > 0, 1.0, False)
