# SPDX-License-Identifier: Apache-2.0
"""npu_fusion_attention, values and gradients, against explicit loops over batch and heads in float64."""

import pytest
import torch
import torch_npu
from hypothesis import given, settings
from hypothesis import strategies as st

TEMPLATE = torch.ones(2048, 2048, dtype=torch.bool).triu(1)
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 3e-2}


def head_attention(q, k, v, visible, scale):
    """One head: [Sq, D], [Sk, D], [Sk, Dv], visible(i, j) → [Sq, Dv]; built from differentiable pieces row by row."""
    rows = []
    for i in range(q.shape[0]):
        keys = [j for j in range(k.shape[0]) if visible(i, j)]
        if not keys:
            rows.append(q[i, :1] * 0 + torch.zeros(v.shape[1], dtype=v.dtype))
            continue
        e = torch.exp((k[keys] @ q[i]) * scale)
        rows.append((e / e.sum()) @ v[keys])
    return torch.stack(rows)


def reference(q, k, v, visible, scale):
    """[B, N, Sq, D], [B, Nkv, Sk, D], [B, Nkv, Sk, Dv]; visible(b, n, i, j)."""
    groups = q.shape[1] // k.shape[1]
    return torch.stack(
        [
            torch.stack(
                [
                    head_attention(
                        q[b, n], k[b, n // groups], v[b, n // groups], lambda i, j, b=b, n=n: visible(b, n, i, j), scale
                    )
                    for n in range(q.shape[1])
                ]
            )
            for b in range(q.shape[0])
        ]
    )


def to_layout(layout, x):
    """[B, N, S, D] → layout."""
    if layout == "SBH":
        return x.permute(2, 0, 1, 3).reshape(x.shape[2], x.shape[0], -1)
    if layout == "BSH":
        return x.permute(0, 2, 1, 3).reshape(x.shape[0], x.shape[2], -1)
    return x.transpose(1, 2) if layout == "BSND" else x


def compare(layout, q, k, v, visible, dtype=torch.float32, scale=0.4, **options):
    arguments = [to_layout(layout, t).to(dtype).npu().requires_grad_() for t in (q, k, v)]
    out = torch_npu.npu_fusion_attention(*arguments, q.shape[1], layout, scale=scale, **options)[0]
    wide = [t.to(dtype).double().requires_grad_() for t in (q, k, v)]
    expected = to_layout(layout, reference(*wide, visible, scale))
    grad = torch.randn(expected.shape).to(dtype)
    out.backward(grad.npu())
    expected.backward(grad.double())
    tol = TOLERANCE[dtype]
    torch.testing.assert_close(out.detach().cpu().double(), expected.detach(), rtol=tol, atol=tol)
    for found, right in zip(arguments, wide, strict=True):
        torch.testing.assert_close(found.grad.cpu().double(), to_layout(layout, right.grad), rtol=4 * tol, atol=4 * tol)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", ["SBH", "BSH", "BSND", "BNSD"])
def test_layouts_causal_grouped_heads(layout, dtype):
    q, k, v = torch.randn(2, 4, 5, 8), torch.randn(2, 2, 5, 8), torch.randn(2, 2, 5, 8)
    compare(layout, q, k, v, lambda b, n, i, j: j <= i, dtype, atten_mask=TEMPLATE.npu(), sparse_mode=2)


def test_value_may_be_narrower_than_key():
    q, k, v = torch.randn(1, 2, 4, 8), torch.randn(1, 2, 4, 8), torch.randn(1, 2, 4, 6)
    compare("BNSD", q, k, v, lambda b, n, i, j: j <= i, atten_mask=TEMPLATE.npu(), sparse_mode=3)


@pytest.mark.parametrize("sq,sk", [(3, 6), (6, 3), (4, 4)])
@pytest.mark.parametrize("mode", [2, 3, 4])
def test_sparse_modes_with_unequal_lengths(mode, sq, sk):
    q, k, v = torch.randn(1, 2, sq, 4), torch.randn(1, 2, sk, 4), torch.randn(1, 2, sk, 4)
    shift = sk - sq

    def visible(b, n, i, j):
        return {2: j <= i, 3: j <= i + shift, 4: i + shift - 2 <= j <= i + shift + 1}[mode]

    compare("BNSD", q, k, v, visible, atten_mask=TEMPLATE.npu(), sparse_mode=mode, pre_tockens=2, next_tockens=1)


@pytest.mark.parametrize("form", ["square", "one", "batch", "full"])
@pytest.mark.parametrize("mode", [0, 1])
def test_given_masks(mode, form):
    shape = {"square": (5, 6), "one": (1, 1, 5, 6), "batch": (2, 1, 5, 6), "full": (2, 3, 5, 6)}[form]
    mask = torch.rand(shape) > 0.6
    spread = mask.expand(2, 3, 5, 6)
    q, k, v = torch.randn(2, 3, 5, 4), torch.randn(2, 3, 6, 4), torch.randn(2, 3, 6, 4)

    def visible(b, n, i, j):
        return not bool(spread[b, n, i, j]) and (mode == 1 or i - 3 <= j <= i + 1)

    compare(
        "BNSD", q, k, v, visible, atten_mask=mask.to(torch.uint8).npu(), sparse_mode=mode, pre_tockens=3, next_tockens=1
    )


def test_no_mask_sees_everything():
    q, k, v = torch.randn(2, 2, 3, 4), torch.randn(2, 2, 5, 4), torch.randn(2, 2, 5, 4)
    compare("BNSD", q, k, v, lambda b, n, i, j: True, next_tockens=0)  # without a mask the band is ignored


@settings(max_examples=15, deadline=None)
@given(lengths=st.lists(st.integers(0, 9), min_size=1, max_size=5), causal=st.booleans())
def test_packed_requests(lengths, causal):
    total = sum(lengths)
    q, k, v = torch.randn(total, 2, 4), torch.randn(total, 1, 4), torch.randn(total, 1, 3)
    ends = [sum(lengths[: i + 1]) for i in range(len(lengths))]
    arguments = [t.npu().requires_grad_() for t in (q, k, v)]
    options = {"atten_mask": TEMPLATE.npu(), "sparse_mode": 3} if causal else {}
    out, peak, norm, *_ = torch_npu.npu_fusion_attention(
        *arguments, 2, "TND", scale=0.4, actual_seq_qlen=[0, *ends], actual_seq_kvlen=[0, *ends], **options
    )
    assert out.shape == (total, 2, 3) and peak.shape == norm.shape == (total, 2, 8)
    wide, parts, start = [t.double().requires_grad_() for t in (q, k, v)], [], 0
    for length in lengths:
        if length:
            piece = [t[start : start + length].transpose(0, 1).unsqueeze(0) for t in wide]
            parts.append(reference(*piece, lambda b, n, i, j: j <= i or not causal, 0.4)[0].transpose(0, 1))
        start += length
    if not parts:
        return
    expected, grad = torch.cat(parts), torch.randn(total, 2, 3)
    expected.backward(grad.double())
    out.backward(grad.npu())
    torch.testing.assert_close(out.detach().cpu().double(), expected.detach(), rtol=1e-5, atol=1e-5)
    for found, right in zip(arguments, wide, strict=True):
        torch.testing.assert_close(found.grad.cpu().double(), right.grad, rtol=1e-4, atol=1e-5)


def test_softmax_statistics():
    q, k, v = (torch.randn(1, 2, 3, 4) for _ in range(3))
    _, peak, norm, *_ = torch_npu.npu_fusion_attention(q.npu(), k.npu(), v.npu(), 2, "BNSD", scale=0.5)
    scores = 0.5 * q.double() @ k.double().transpose(-1, -2)
    assert peak.shape == (1, 2, 3, 8)
    torch.testing.assert_close(peak.cpu().double()[..., 5], scores.max(-1).values, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close((peak + norm.log()).cpu().double()[..., 0], scores.logsumexp(-1), rtol=1e-5, atol=1e-5)


def test_masked_out_query_gives_zero_and_no_nan_gradient():
    q, k, v = (torch.randn(1, 1, 2, 4).npu().requires_grad_() for _ in range(3))
    mask = torch.tensor([[True, True], [False, True]]).npu()
    out = torch_npu.npu_fusion_attention(q, k, v, 1, "BNSD", atten_mask=mask, sparse_mode=1)[0]
    out.sum().backward()
    assert bool((out[0, 0, 0] == 0).all())
    assert not any(bool(t.grad.isnan().any()) for t in (q, k, v))


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"keep_prob": 0.9}, NotImplementedError, "npu_fusion_attention.*keep_prob=0.9"),
        ({"sparse_mode": 5}, NotImplementedError, "npu_fusion_attention.*sparse_mode=5"),
        ({"input_layout": "NTD"}, NotImplementedError, "npu_fusion_attention.*input_layout"),
        ({"pse": torch.zeros(1)}, NotImplementedError, "npu_fusion_attention.*pse"),
        ({"sparse_mode": 2}, ValueError, "npu_fusion_attention: atten_mask is None"),
        ({"atten_mask": torch.zeros(3, 3)}, ValueError, "npu_fusion_attention: atten_mask is of dtype float32"),
        (
            {"atten_mask": torch.zeros(2, 3, dtype=torch.bool)},
            ValueError,
            "npu_fusion_attention: atten_mask is of shape",
        ),
        ({"head_num": 3}, ValueError, "npu_fusion_attention: head_num is 3"),
        ({"key": torch.zeros(1, 2, 3, 8)}, ValueError, "npu_fusion_attention: key"),
        ({"actual_seq_qlen": [3]}, NotImplementedError, "npu_fusion_attention.*actual_seq_qlen"),
    ],
)
def test_refuses(changed, error, message):
    arguments = {
        "query": torch.randn(1, 2, 3, 4),
        "key": torch.randn(1, 2, 3, 4),
        "value": torch.randn(1, 2, 3, 4),
        "head_num": 2,
        "input_layout": "BNSD",
    }
    arguments = {k: v.npu() if isinstance(v, torch.Tensor) else v for k, v in {**arguments, **changed}.items()}
    with pytest.raises(error, match=message):
        torch_npu.npu_fusion_attention(**arguments)


def test_packed_refuses():
    x = torch.randn(4, 2, 4).npu()
    for ends, message in (([3], "end at 4"), ([3, 2, 4], "end at 4"), (None, "actual_seq_qlen is NoneType")):
        with pytest.raises(ValueError, match=message):
            torch_npu.npu_fusion_attention(x, x, x, 2, "TND", actual_seq_qlen=ends, actual_seq_kvlen=[4])
    with pytest.raises(NotImplementedError, match="atten_mask"):
        torch_npu.npu_fusion_attention(
            x,
            x,
            x,
            2,
            "TND",
            actual_seq_qlen=[4],
            actual_seq_kvlen=[4],
            atten_mask=torch.zeros(4, 4, dtype=torch.bool).npu(),
        )
