# SPDX-License-Identifier: Apache-2.0
"""Rotary position embeddings. "half" rotates (x[:D/2], x[D/2:]), "interleave" rotates neighbouring pairs."""

import torch
from torch import Tensor

from . import checks
from .registry import op


def _rotate_half(x: Tensor) -> Tensor:
    first, second = x.chunk(2, -1)
    return torch.cat((-second, first), -1)


def _rotate_pairs(x: Tensor) -> Tensor:
    return torch.stack((-x[..., 1::2], x[..., ::2]), -1).flatten(-2)


def deinterleave_rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Reorder (x0, x1, x2, x3, ...) to (x0, x2, ..., x1, x3, ...), then rotate halves; float32 inside, dtype of x.

    cos and sin broadcast against x; their last dimension is D with both halves filled.
    """
    even, odd = x[..., ::2].float(), x[..., 1::2].float()
    half = even.shape[-1]
    cos, sin = cos.float(), sin.float()
    low = even * cos[..., :half] - odd * sin[..., :half]
    high = odd * cos[..., half:] + even * sin[..., half:]
    return torch.cat((low, high), -1).to(x.dtype)


def _rotary(name: str, x: Tensor, cos: Tensor, sin: Tensor, interleaved: bool) -> Tensor:
    checks.dtype(name, "x", x, checks.FLOATS)
    checks.dtype(name, "cos", cos, checks.FLOATS)
    checks.same_dtype(name, cos=cos, sin=sin)
    for label, t in (("x", x), ("cos", cos), ("sin", sin)):
        checks.rank(name, label, t, 4)
    checks.shape(name, "sin", sin, cos.shape)
    checks.true(name, "x", x.shape[-1] % 2 == 0, f"of head size {x.shape[-1]}", "an even head size")
    if cos.shape[-1] != x.shape[-1] or any(c not in (1, s) for c, s in zip(cos.shape, x.shape, strict=True)):
        raise checks.invalid(
            name, "cos", f"of shape {tuple(cos.shape)}", f"broadcastable to x {tuple(x.shape)} with the same head size"
        )
    wide = x.float()
    turned = _rotate_pairs(wide) if interleaved else _rotate_half(wide)
    return (wide * cos.float() + turned * sin.float()).to(x.dtype)


@op(trained=True)
def npu_rotary_mul(input: Tensor, r1: Tensor, r2: Tensor, rotary_mode: str = "half") -> Tensor:
    """x·r1 + rotate(x)·r2 with 4-dimensional x and broadcastable r1 (cos), r2 (sin), both cast to the dtype of x."""
    checks.only("npu_rotary_mul", ("half", "interleave"), rotary_mode=rotary_mode)
    r1, r2 = r1.to(input.dtype), r2.to(input.dtype)
    return _rotary("npu_rotary_mul", input, r1, r2, rotary_mode == "interleave")


@op(trained=True)
def npu_rotary_position_embedding(x: Tensor, cos: Tensor, sin: Tensor, mode: int = 0) -> Tensor:
    """The training rope; mode 0 = rotate halves, 1 = rotate neighbouring pairs."""
    checks.only("npu_rotary_position_embedding", (0, 1), mode=mode)
    return _rotary("npu_rotary_position_embedding", x, cos, sin, mode == 1)


@op()
def npu_apply_rotary_pos_emb(
    query: Tensor, key: Tensor, cos: Tensor, sin: Tensor, layout: str = "BSND", rotary_mode: str = "half"
) -> tuple[Tensor, Tensor]:
    """Rotate query and key in place: [B, S, N, D] with cos, sin [B, S, 1, D]."""
    name = "npu_apply_rotary_pos_emb"
    checks.only(name, ("BSND", 1), layout=layout)
    checks.only(name, "half", rotary_mode=rotary_mode)
    checks.same_dtype(name, query=query, key=key, cos=cos, sin=sin)
    query.copy_(_rotary(name, query, cos, sin, False))
    key.copy_(_rotary(name, key, cos, sin, False))
    return query, key


@op()
def _npu_rotary_embedding(
    positions: Tensor, query: Tensor, key: Tensor, head_size: int, cos_sin_cache: Tensor, is_neox_style: bool
) -> None:
    """Rotate query and key in place by the cached cos and sin of each token's position.

    Args:
        positions: int32 or int64 [T].
        query, key: [T, heads · head_size] of one dtype.
        cos_sin_cache: [max position, rotary_dim], cos in the first half of the columns, sin in the second; of the same
            dtype or float32.
    """
    name = "_npu_rotary_embedding"
    checks.dtype(name, "positions", positions, checks.INDEX)
    checks.dtype(name, "query", query, checks.FLOATS)
    checks.same_dtype(name, query=query, key=key)
    checks.dtype(name, "cos_sin_cache", cos_sin_cache, {query.dtype, torch.float32})
    rotary_dim = cos_sin_cache.shape[-1]
    checks.true(
        name,
        "cos_sin_cache",
        rotary_dim <= head_size and rotary_dim % 2 == 0,
        f"of rotary size {rotary_dim}",
        f"an even size of at most head_size={head_size}",
    )
    cos, sin = cos_sin_cache.index_select(0, positions.flatten()).float().unsqueeze(1).chunk(2, -1)
    for label, tensor in (("query", query), ("key", key)):
        checks.rank(name, label, tensor, 2)
        checks.true(
            name,
            label,
            tensor.shape[0] == positions.numel() and tensor.shape[1] % head_size == 0,
            f"of shape {tuple(tensor.shape)}",
            f"[{positions.numel()}, heads * {head_size}]",
        )
        checks.true(
            name, label, tensor.is_contiguous(), "not contiguous", "contiguous memory, for it is changed in place"
        )
        rotated = tensor.view(tensor.shape[0], tensor.shape[1] // head_size, head_size)[..., :rotary_dim]
        if is_neox_style:
            first, second = rotated.float().chunk(2, -1)
            rotated.copy_(torch.cat((first * cos - second * sin, second * cos + first * sin), -1))
        else:
            wide = rotated.float()
            first, second = wide[..., ::2], wide[..., 1::2]
            rotated.copy_(torch.stack((first * cos - second * sin, second * cos + first * sin), -1).flatten(-2))


@op()
def npu_interleave_rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """De-interleave the pairs of x [B, N, S, D], then rotate halves; the result stays de-interleaved.

    cos, sin: [B, 1, S|1, D] of the dtype of x.
    """
    check_interleaved("npu_interleave_rope", x, cos, sin)
    return deinterleave_rope(x, cos, sin)


def check_interleaved(name: str, x: Tensor, cos: Tensor, sin: Tensor) -> None:
    """Shapes that npu_interleave_rope and the rope inside npu_kv_rmsnorm_rope_cache share."""
    checks.dtype(name, "x", x, checks.FLOATS)
    checks.same_dtype(name, x=x, cos=cos, sin=sin)
    checks.rank(name, "x", x, 4)
    batch, _, length, dim = x.shape
    checks.true(name, "x", dim % 2 == 0, f"of head size {dim}", "an even head size")
    for label, t in (("cos", cos), ("sin", sin)):
        if t.dim() != 4 or t.shape[0] != batch or t.shape[1] != 1 or t.shape[2] not in (1, length) or t.shape[3] != dim:
            raise checks.invalid(name, label, f"of shape {tuple(t.shape)}", f"[{batch}, 1, {length} or 1, {dim}]")
