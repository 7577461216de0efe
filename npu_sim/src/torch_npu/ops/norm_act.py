# SPDX-License-Identifier: Apache-2.0
"""Norms, activations and the masked softmax. Arithmetic in float32, results in the inputs' dtype."""

import torch
import torch.nn.functional as F
from torch import Tensor

from . import checks
from .registry import op


def rms_norm_rows(x: Tensor, gamma: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """RMSNorm over the last dimensions that ``gamma`` has; returns (y, rstd in float32 with kept dimensions).

    The kernels round x·rstd to the dtype of x before they multiply by gamma (as Hugging Face's RMSNorm does).
    """
    dims = tuple(range(-gamma.dim(), 0))
    wide = x.float()
    rstd = torch.rsqrt(wide.square().mean(dims, keepdim=True) + epsilon)
    normed = wide * rstd
    if x.dtype != torch.float32:
        normed = normed.to(x.dtype).float()
    return (normed * gamma.float()).to(x.dtype), rstd


def _rms_norm_exact(x: Tensor, gamma: Tensor, epsilon: float = 1e-6) -> tuple[Tensor, Tensor]:
    # For backward: the gradient kernel does not see the rounding in the middle.
    dims = tuple(range(-gamma.dim(), 0))
    wide = x.float()
    rstd = torch.rsqrt(wide.square().mean(dims, keepdim=True) + epsilon)
    return (wide * rstd * gamma.float()).to(x.dtype), rstd


def _add_rms_norm_exact(x1: Tensor, x2: Tensor, gamma: Tensor, epsilon: float = 1e-6) -> tuple[Tensor, Tensor, Tensor]:
    total = x1 + x2
    return (*_rms_norm_exact(total, gamma, epsilon), total)


def _check_norm(name: str, x: Tensor, gamma: Tensor) -> None:
    checks.dtype(name, "x", x, checks.FLOATS)
    if gamma.dim() > x.dim() or gamma.dim() == 0 or x.shape[-gamma.dim() :] != gamma.shape:
        raise checks.invalid(
            name, "gamma", f"of shape {tuple(gamma.shape)}", f"the last dimensions of x {tuple(x.shape)}"
        )


@op(trained=True, grad_body=_rms_norm_exact)
def npu_rms_norm(x: Tensor, gamma: Tensor, epsilon: float = 1e-6) -> tuple[Tensor, Tensor]:
    """RMSNorm. x [..., D], gamma [D] of the same dtype or float32. Returns (y like x, rstd float32 [..., 1])."""
    _check_norm("npu_rms_norm", x, gamma)
    checks.dtype("npu_rms_norm", "gamma", gamma, {x.dtype, torch.float32})
    return rms_norm_rows(x, gamma, epsilon)


@op(trained=True, grad_body=_add_rms_norm_exact)
def npu_add_rms_norm(x1: Tensor, x2: Tensor, gamma: Tensor, epsilon: float = 1e-6) -> tuple[Tensor, Tensor, Tensor]:
    """RMSNorm of x1 + x2. Returns (y, rstd float32, x1 + x2), all newly allocated (callers free the inputs)."""
    _check_norm("npu_add_rms_norm", x1, gamma)
    checks.same_dtype("npu_add_rms_norm", x1=x1, x2=x2, gamma=gamma)
    checks.shape("npu_add_rms_norm", "x2", x2, x1.shape)
    total = x1 + x2
    return (*rms_norm_rows(total, gamma, epsilon), total)


@op(trained=True)
def npu_swiglu(self: Tensor, dim: int = -1) -> Tensor:
    """silu(first half) · second half along ``dim`` (even size)."""
    checks.dtype("npu_swiglu", "self", self, checks.FLOATS)
    checks.true(
        "npu_swiglu",
        "self",
        self.dim() > 0 and self.shape[dim] % 2 == 0,
        f"of shape {tuple(self.shape)}",
        f"an even size in dimension {dim}",
    )
    gate, up = self.chunk(2, dim)
    return (F.silu(gate.float()) * up.float()).to(self.dtype)


@op()
def npu_fast_gelu(self: Tensor) -> Tensor:
    """x · sigmoid(1.702 x), the tanh-free approximation of GELU (CANN's FastGelu)."""
    checks.dtype("npu_fast_gelu", "self", self, checks.FLOATS)
    wide = self.float()
    return (wide * torch.sigmoid(1.702 * wide)).to(self.dtype)


@op(trained=True)
def npu_scaled_masked_softmax(x: Tensor, mask: Tensor, scale: float = 1.0, fixed_triu_mask: bool = False) -> Tensor:
    """softmax(scale · x, masked positions set to -10000) over the last dimension.

    Args:
        x: scores [B, N, Sq, Sk].
        mask: bool [1|B, 1|N, Sq, Sk], True = masked; not read when ``fixed_triu_mask`` (a causal mask is made inside).
    """
    name = "npu_scaled_masked_softmax"
    checks.dtype(name, "x", x, checks.FLOATS)
    checks.rank(name, "x", x, 4)
    if fixed_triu_mask:
        mask = torch.ones(x.shape[-2:], dtype=torch.bool).triu(1)
    else:
        checks.dtype(name, "mask", mask, (torch.bool,))
        checks.rank(name, "mask", mask, 4)
        if (
            any(m not in (1, s) for m, s in zip(mask.shape[:2], x.shape[:2], strict=True))
            or mask.shape[2:] != x.shape[2:]
        ):
            raise checks.invalid(
                name, "mask", f"of shape {tuple(mask.shape)}", f"broadcastable over batch and heads of {tuple(x.shape)}"
            )
    scores = (x.float() * scale).masked_fill(mask, -10000.0)
    return F.softmax(scores, -1).to(x.dtype)
