# SPDX-License-Identifier: Apache-2.0
"""Rotary embeddings against complex multiplication."""

import pytest
import torch
import torch_npu
from hypothesis import given, settings
from hypothesis import strategies as st

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 3e-2, torch.float16: 4e-3}


def turn(first, second, angle):
    """Rotate the pairs (first, second) by ``angle``; returns both coordinates."""
    z = torch.complex(first.double(), second.double()) * torch.exp(1j * angle.double())
    return z.real, z.imag


def close(found, expected, dtype=torch.float32):
    torch.testing.assert_close(
        found.detach().cpu().double(), expected.double(), rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype]
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("mode", [0, 1])
def test_training_rope(dtype, mode):
    s, b, n, d = 5, 2, 3, 8
    x, angle = torch.randn(s, b, n, d).to(dtype), torch.rand(s, 1, 1, d // 2) * 6
    both = torch.cat((angle, angle), -1) if mode == 0 else angle.repeat_interleave(2, -1)
    xn = x.npu().requires_grad_()
    cos, sin = both.cos().to(dtype).npu(), both.sin().to(dtype).npu()
    y = torch_npu.npu_rotary_position_embedding(xn, cos, sin, mode)
    pairs = (x[..., : d // 2], x[..., d // 2 :]) if mode == 0 else (x[..., ::2], x[..., 1::2])
    real, imag = turn(*pairs, angle)
    expected = torch.cat((real, imag), -1) if mode == 0 else torch.stack((real, imag), -1).flatten(-2)
    close(y, expected, dtype)
    # The rotation is orthogonal: the gradient is turned back.
    y.backward(expected.to(dtype).npu())
    close(xn.grad, x, dtype)
    same = torch_npu.npu_rotary_mul(x.npu(), cos, sin, "half" if mode == 0 else "interleave")
    assert torch.equal(same.cpu(), y.detach().cpu())


def test_training_rope_refuses():
    x, c = torch.randn(2, 1, 1, 8).npu(), torch.randn(2, 1, 1, 8).npu()
    with pytest.raises(NotImplementedError, match=r"npu_rotary_position_embedding.*mode=2"):
        torch_npu.npu_rotary_position_embedding(x, c, c, 2)
    with pytest.raises(ValueError, match="npu_rotary_position_embedding: x is 3-dimensional"):
        torch_npu.npu_rotary_position_embedding(x[0], c, c)
    with pytest.raises(ValueError, match="npu_rotary_mul: cos is of shape"):
        torch_npu.npu_rotary_mul(x, c[..., :4], c[..., :4])
    with pytest.raises(ValueError, match="npu_rotary_mul: sin"):
        torch_npu.npu_rotary_mul(x, c, c[:1])


@settings(max_examples=20, deadline=None)
@given(
    tokens=st.integers(0, 6),
    heads=st.integers(1, 4),
    rotary=st.sampled_from([4, 8, 16]),
    neox=st.booleans(),
    wide=st.booleans(),
)
def test_inference_rope_in_place(tokens, heads, rotary, neox, wide):
    size = 16
    angles = torch.rand(32, rotary // 2) * 6
    cache = torch.cat((angles.cos(), angles.sin()), -1)
    positions = torch.randint(0, 32, (tokens,), dtype=torch.int64 if wide else torch.int32)
    query, key = torch.randn(tokens, heads * size), torch.randn(tokens, size)
    q, k = query.npu(), key.npu()
    assert torch_npu._npu_rotary_embedding(positions.npu(), q, k, size, cache.npu(), neox) is None
    for before, after in ((query, q), (key, k)):
        rows = before.unflatten(1, (-1, size)).double()
        half = rotary // 2
        at = angles[positions.long()].unsqueeze(1)
        first, second = (
            (rows[..., :half], rows[..., half:rotary]) if neox else (rows[..., :rotary:2], rows[..., 1:rotary:2])
        )
        real, imag = turn(first, second, at)
        turned = torch.cat((real, imag), -1) if neox else torch.stack((real, imag), -1).flatten(-2)
        close(after.unflatten(1, (-1, size)), torch.cat((turned, rows[..., rotary:]), -1))


def test_inference_rope_refuses():
    q, k = torch.randn(3, 32).npu(), torch.randn(3, 16).npu()
    cache, positions = torch.randn(8, 16).npu(), torch.arange(3).npu()
    call = torch_npu._npu_rotary_embedding
    with pytest.raises(ValueError, match="_npu_rotary_embedding: positions is of dtype float32"):
        call(positions.float(), q, k, 16, cache, True)
    with pytest.raises(ValueError, match="_npu_rotary_embedding: cos_sin_cache is of rotary size 16"):
        call(positions, q, k, 8, cache, True)
    with pytest.raises(
        ValueError, match=r"_npu_rotary_embedding: key is torch.float32|_npu_rotary_embedding: cos_sin_cache"
    ):
        call(positions, q, k, 16, cache.bfloat16(), True)
    with pytest.raises(ValueError, match="_npu_rotary_embedding: query is of shape"):
        call(positions[:2], q, k, 16, cache, True)
    with pytest.raises(ValueError, match="_npu_rotary_embedding: query is not contiguous"):
        call(positions, torch.randn(3, 64).npu()[:, ::2], k, 16, cache, True)


def test_rotary_mul_rounds_cos_and_sin_to_the_dtype_of_x():
    """Of mixed dtypes torch_npu casts cos and sin before the kernel."""
    x, angle = torch.randn(2, 3, 2, 8).bfloat16().npu(), torch.rand(1, 3, 1, 8) * 6
    cos, sin = angle.cos().npu(), angle.sin().npu()
    mixed, rounded = (torch_npu.npu_rotary_mul(x, *turn) for turn in ((cos, sin), (cos.bfloat16(), sin.bfloat16())))
    assert mixed.dtype == torch.bfloat16 and torch.equal(mixed, rounded)


def test_apply_rotary_pos_emb_in_place():
    q, k, angle = torch.randn(1, 3, 2, 128), torch.randn(1, 3, 1, 128), torch.rand(1, 3, 1, 64)
    both = torch.cat((angle, angle), -1)
    qn, kn = q.npu(), k.npu()
    result = torch_npu.npu_apply_rotary_pos_emb(qn, kn, both.cos().npu(), both.sin().npu())
    assert result[0] is qn and result[1] is kn
    for before, after in ((q, qn), (k, kn)):
        close(after, torch.cat(turn(before[..., :64], before[..., 64:], angle), -1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_interleave_rope(dtype):
    b, n, d = 5, 3, 16
    x, angle = torch.randn(b, n, 1, d).to(dtype), torch.rand(b, 1, 1, d // 2) * 6
    both = torch.cat((angle, angle), -1)
    y = torch_npu.npu_interleave_rope(x.npu(), both.cos().to(dtype).npu(), both.sin().to(dtype).npu())
    close(y, torch.cat(turn(x[..., ::2], x[..., 1::2], angle), -1), dtype)
    with pytest.raises(ValueError, match="npu_interleave_rope: cos is of shape"):
        torch_npu.npu_interleave_rope(x.npu(), both[:1].to(dtype).npu(), both.to(dtype).npu())
    with pytest.raises(ValueError, match="npu_interleave_rope: x is 3-dimensional"):
        torch_npu.npu_interleave_rope(x[0].npu(), both.to(dtype).npu(), both.to(dtype).npu())
