# SPDX-License-Identifier: Apache-2.0
"""Gating, routing and permutation against loops over tokens."""

import pytest
import torch
import torch_npu
from hypothesis import given, settings
from hypothesis import strategies as st

DTYPES = st.sampled_from([torch.float32, torch.bfloat16])


def best(scores, k):
    """Indices of the k largest, lower index first among equals."""
    return sorted(range(len(scores)), key=lambda i: (-scores[i], i))[:k]


@settings(max_examples=15, deadline=None)
@given(tokens=st.integers(0, 6), experts=st.integers(2, 12), data=st.data())
def test_gating_softmax(tokens, experts, data):
    k = data.draw(st.integers(1, experts))
    logits = torch.randint(-3, 4, (tokens, experts)).float()  # with ties
    weights, chosen, rows = torch_npu.npu_moe_gating_top_k_softmax(logits.npu(), None, k)
    assert chosen.dtype == rows.dtype == torch.int32
    for t in range(tokens):
        p = (logits[t].double().exp() / logits[t].double().exp().sum()).tolist()
        expected = best([round(x, 12) for x in p], k)
        assert chosen[t].tolist() == expected
        torch.testing.assert_close(
            weights[t].cpu().double(), torch.tensor([p[e] for e in expected], dtype=torch.float64), rtol=1e-5, atol=1e-7
        )
        assert rows[t].tolist() == [j * tokens + t for j in range(k)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("experts", "groups", "kept", "mode"),
    [(256, 8, 4, 1), (256, 8, 3, 0), (256, 1, 1, 1), (256, 4, 4, 1), (32, 8, 4, 1)],
)
def test_gating(experts, groups, kept, mode, dtype):
    logits, bias = torch.randn(6, experts).to(dtype), (torch.randn(experts) / 4).to(dtype)
    weights, chosen, scores = torch_npu.npu_moe_gating_top_k(
        logits.npu(),
        8,
        bias=bias.npu(),
        k_group=kept,
        group_count=groups,
        group_select_mode=mode,
        norm_type=1,
        routed_scaling_factor=2.5,
        out_flag=True,
    )
    assert weights.dtype == dtype and scores.shape == (6, experts)
    for t in range(6):
        raw = torch.sigmoid(logits[t].float())
        choice = (raw + bias.float()).tolist()
        size = experts // groups
        rank = [
            sum(sorted(choice[g * size : (g + 1) * size])[-2:]) if mode == 1 else max(choice[g * size : (g + 1) * size])
            for g in range(groups)
        ]
        allowed = best(rank, kept)
        expected = best([c if e // size in allowed else -9.0 for e, c in enumerate(choice)], 8)
        assert chosen[t].tolist() == expected
        w = raw[expected].double()
        torch.testing.assert_close(
            weights[t].cpu().double(),
            w / (w.sum() + 1e-20) * 2.5,
            rtol=1e-5 if dtype == torch.float32 else 1e-2,
            atol=1e-6,
        )


def test_gating_refuses():
    x = torch.randn(2, 256).npu()
    with pytest.raises(ValueError, match="npu_moe_gating_top_k: group_count is 8, expected groups of two"):
        torch_npu.npu_moe_gating_top_k(x[:, :8].contiguous(), 2, group_count=8, k_group=4, group_select_mode=1)
    with pytest.raises(NotImplementedError, match=r"npu_moe_gating_top_k.*renorm=1"):
        torch_npu.npu_moe_gating_top_k(x, 8, renorm=1)
    with pytest.raises(ValueError, match="npu_moe_gating_top_k: k is 9"):
        torch_npu.npu_moe_gating_top_k(x, 9, group_count=32, k_group=1)
    with pytest.raises(ValueError, match="npu_moe_gating_top_k: group_count is 7"):
        torch_npu.npu_moe_gating_top_k(x, 8, group_count=7)
    with pytest.raises(NotImplementedError, match=r"npu_moe_gating_top_k_softmax.*finished"):
        torch_npu.npu_moe_gating_top_k_softmax(x, x > 0, 2)
    with pytest.raises(ValueError, match="npu_moe_gating_top_k_softmax: k is 257"):
        torch_npu.npu_moe_gating_top_k_softmax(x, None, 257)


@settings(max_examples=25, deadline=None)
@given(
    tokens=st.integers(1, 8),
    experts=st.integers(1, 6),
    k=st.integers(1, 4),
    dtype=DTYPES,
    bias=st.booleans(),
    skip=st.booleans(),
)
def test_routing_there_and_back(tokens, experts, k, dtype, bias, skip):
    x = torch.randn(tokens, 5).to(dtype)
    chosen = torch.randint(0, experts, (tokens, k), dtype=torch.int32)
    row_idx = torch.arange(tokens * k, dtype=torch.int32).view(k, tokens).t().contiguous()
    rows, place, order = torch_npu.npu_moe_init_routing(
        x.npu(), row_idx=row_idx.npu(), expert_idx=chosen.npu(), active_num=tokens
    )
    flat = [(int(chosen[i, j]), i, j) for i in range(tokens) for j in range(k)]
    ranked = sorted(flat, key=lambda item: item[0])  # stable
    assert order.tolist() == [e for e, _, _ in ranked]
    assert torch.equal(rows.cpu(), x[[i for _, i, _ in ranked]])
    assert all(place[j * tokens + i] == n for n, (_, i, j) in enumerate(ranked))

    ends = torch_npu.npu_moe_compute_expert_tokens(order, experts)
    assert ends.dtype == torch.int32 and ends.tolist() == [
        sum(e <= last for e, _, _ in flat) for last in range(experts)
    ]

    results = torch.randn(tokens * k, 5).to(dtype)
    scales, biases, skips = (
        torch.rand(tokens, k).to(dtype),
        torch.randn(experts, 5).to(dtype),
        torch.randn(tokens, 5).to(dtype),
    )
    out = torch_npu.npu_moe_finalize_routing(
        results.npu(),
        skip1=skips.npu() if skip else None,
        skip2=None,
        bias=biases.npu() if bias else None,
        scales=scales.npu(),
        expanded_src_to_dst_row=place,
        export_for_source_row=chosen.npu(),
    )
    expected = skips.double() * skip
    for n, (e, i, j) in enumerate(ranked):
        expected[i] += scales[i, j].double() * (results[n].double() + biases[e].double() * bias)
    tol = 1e-5 if dtype == torch.float32 else 4e-2
    torch.testing.assert_close(out.cpu().double(), expected, rtol=tol, atol=tol)


def test_routing_cuts_to_active_tokens_and_takes_nobody():
    x, chosen = torch.randn(4, 3).npu(), torch.zeros(4, 2, dtype=torch.int32).npu()
    row_idx = torch.arange(8, dtype=torch.int32).view(2, 4).t().contiguous().npu()
    assert torch_npu.npu_moe_init_routing(x, row_idx, chosen, 3)[0].shape == (6, 3)
    rows, place, order = torch_npu.npu_moe_init_routing(x[:0], row_idx[:0], chosen[:0], 0)
    assert rows.shape == (0, 3) and place.numel() == order.numel() == 0
    assert torch_npu.npu_moe_compute_expert_tokens(order, 3).tolist() == [0, 0, 0]
    empty = torch_npu.npu_moe_finalize_routing(rows, None, None, None, torch.zeros(0, 2).npu(), place, chosen[:0])
    assert empty.shape == (0, 3)


def test_routing_refuses():
    x, idx = torch.randn(4, 3).npu(), torch.zeros(4, 2, dtype=torch.int32).npu()
    with pytest.raises(ValueError, match="npu_moe_init_routing: row_idx is of dtype int64"):
        torch_npu.npu_moe_init_routing(x, idx.long(), idx, 4)
    with pytest.raises(ValueError, match="npu_moe_init_routing: expert_idx is of shape"):
        torch_npu.npu_moe_init_routing(x, idx, idx[:2], 4)
    with pytest.raises(ValueError, match="npu_moe_compute_expert_tokens: sorted_experts is of dtype int64"):
        torch_npu.npu_moe_compute_expert_tokens(idx[:, 0].long(), 4)
    place = torch.arange(8, dtype=torch.int32).npu()
    rows, scales = torch.randn(8, 3).npu(), torch.rand(4, 2).npu()
    with pytest.raises(ValueError, match="npu_moe_finalize_routing: scales is of dtype"):
        torch_npu.npu_moe_finalize_routing(rows, None, None, None, scales.bfloat16(), place, idx)
    with pytest.raises(ValueError, match="npu_moe_finalize_routing: expanded_src_to_dst_row is 7 rows"):
        torch_npu.npu_moe_finalize_routing(rows, None, None, None, scales, place[:7], idx)
    with pytest.raises(NotImplementedError, match=r"npu_moe_finalize_routing.*drop_pad_mode=1"):
        torch_npu.npu_moe_finalize_routing(rows, None, None, None, scales, place, idx, 1)


@settings(max_examples=20, deadline=None)
@given(tokens=st.integers(1, 6), k=st.integers(1, 3), cut=st.integers(0, 3), flat=st.booleans(), wide=st.booleans())
def test_permute_and_unpermute(tokens, k, cut, flat, wide):
    k = 1 if flat else k
    cut = min(cut, tokens * k - 1)
    x, chosen = torch.randn(tokens, 4), torch.randint(0, 4, (tokens, k), dtype=torch.int64 if wide else torch.int32)
    indices = chosen[:, 0] if flat else chosen
    xn = x.npu().requires_grad_()
    rows, place = torch_npu.npu_moe_token_permute(xn, indices.npu(), tokens * k - cut if cut else None)
    ranked = sorted(((int(chosen[i, j]), i, j) for i in range(tokens) for j in range(k)), key=lambda item: item[0])
    assert torch.equal(rows.detach().cpu(), x[[i for _, i, _ in ranked[: tokens * k - cut]]])
    assert place.dtype == torch.int32 and all(place[i * k + j] == n for n, (_, i, j) in enumerate(ranked))

    probs = torch.rand(tokens, k)
    pn = probs.npu().requires_grad_()
    out = torch_npu.npu_moe_token_unpermute(rows, place, pn)
    xr, pr = x.double().requires_grad_(), probs.double().requires_grad_()
    expected = [torch.zeros(4, dtype=torch.float64) for _ in range(tokens)]
    for _, i, j in ranked[: tokens * k - cut]:
        expected[i] = expected[i] + pr[i, j] * xr[i]
    expected = torch.stack(expected)
    torch.testing.assert_close(out.detach().cpu().double(), expected.detach(), rtol=1e-5, atol=1e-5)
    grad = torch.randn(tokens, 4)
    out.backward(grad.npu())
    expected.backward(grad.double())
    torch.testing.assert_close(xn.grad.cpu().double(), xr.grad, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(pn.grad.cpu().double(), pr.grad, rtol=1e-5, atol=1e-5)


def test_unpermute_without_probs_is_the_inverse():
    x, chosen = torch.randn(6, 3).npu(), torch.tensor([2, 0, 1, 0, 2, 1]).npu()
    rows, place = torch_npu.npu_moe_token_permute(x, chosen)
    assert torch.equal(torch_npu.npu_moe_token_unpermute(rows, place).cpu(), x.cpu())


def test_permute_refuses():
    x, chosen = torch.randn(3, 4).npu(), torch.zeros(3, 2, dtype=torch.int32).npu()
    with pytest.raises(NotImplementedError, match=r"npu_moe_token_permute.*padded_mode=True"):
        torch_npu.npu_moe_token_permute(x, chosen, None, True)
    with pytest.raises(ValueError, match="npu_moe_token_permute: indices is for 2 tokens"):
        torch_npu.npu_moe_token_permute(x, chosen[:2])
    with pytest.raises(ValueError, match="npu_moe_token_unpermute: sorted_indices is of dtype int64"):
        torch_npu.npu_moe_token_unpermute(x, torch.zeros(3, dtype=torch.int64).npu())
    with pytest.raises(ValueError, match="npu_moe_token_unpermute: probs"):
        torch_npu.npu_moe_token_unpermute(x, torch.zeros(3, dtype=torch.int32).npu(), torch.ones(2, 2).npu())


@settings(max_examples=20, deadline=None)
@given(tokens=st.integers(1, 6), experts=st.integers(1, 4), with_probs=st.booleans())
def test_routing_map_there_and_back(tokens, experts, with_probs):
    x, routing = torch.randn(tokens, 3), torch.rand(tokens, experts) > 0.4
    probs = torch.rand(tokens, experts)
    pairs = [(e, t) for e in range(experts) for t in range(tokens) if routing[t, e]]
    rows, moved, ids = torch_npu.npu_moe_token_permute_with_routing_map(
        x.npu(), routing.npu(), probs=probs.npu() if with_probs else None, num_out_tokens=len(pairs)
    )
    assert ids.tolist() == [t for _, t in pairs] and torch.equal(rows.cpu(), x[ids.cpu().long()])
    if with_probs:
        torch.testing.assert_close(moved.cpu(), torch.tensor([float(probs[t, e]) for e, t in pairs]))

    results, grad = torch.randn(len(pairs), 3), torch.randn(tokens, 3)
    out, _, token_id, _ = torch_npu._npu_moe_token_unpermute_with_routing_map(
        results.npu(),
        ids,
        torch.Size((tokens, 3)),
        probs=probs.npu() if with_probs else None,
        routing_map=routing.npu(),
    )
    rr, pr = results.double().requires_grad_(), probs.double().requires_grad_()
    expected = [torch.zeros(3, dtype=torch.float64) for _ in range(tokens)]
    for n, (e, t) in enumerate(pairs):
        expected[t] = expected[t] + (pr[t, e] if with_probs else 1.0) * rr[n]
    expected = torch.stack(expected)
    torch.testing.assert_close(out.cpu().double(), expected.detach(), rtol=1e-5, atol=1e-5)
    if not pairs:
        return
    (expected * grad.double()).sum().backward()
    d_rows, d_probs = torch_npu.npu_moe_token_unpermute_with_routing_map_grad(
        grad.npu(),
        ids,
        token_id,
        routing_map=routing.npu(),
        permuted_tokens=results.npu(),
        probs=probs.npu() if with_probs else None,
    )
    torch.testing.assert_close(d_rows.cpu().double(), rr.grad, rtol=1e-5, atol=1e-5)
    if with_probs:
        torch.testing.assert_close(d_probs.cpu().double(), pr.grad, rtol=1e-5, atol=1e-5)

    # The permutation's own gradient operator is the transpose of the permutation.
    g_rows, g_probs = torch.randn(len(pairs), 3), torch.randn(len(pairs))
    d_x, d_p = torch_npu.npu_moe_token_permute_with_routing_map_grad(
        g_rows.npu(), g_probs.npu() if with_probs else None, ids, routing.npu(), experts, tokens
    )
    expected_x, expected_p = torch.zeros(tokens, 3), torch.zeros(tokens, experts)
    for n, (e, t) in enumerate(pairs):
        expected_x[t] += g_rows[n]
        expected_p[t, e] = g_probs[n]
    torch.testing.assert_close(d_x.cpu(), expected_x, rtol=1e-5, atol=1e-5)
    assert d_p.numel() == 0 if not with_probs else torch.equal(d_p.cpu(), expected_p)


def test_routing_map_refuses():
    x, routing = torch.randn(3, 2).npu(), torch.ones(3, 2, dtype=torch.bool).npu()
    with pytest.raises(NotImplementedError, match=r"npu_moe_token_permute_with_routing_map.*drop_and_pad=True"):
        torch_npu.npu_moe_token_permute_with_routing_map(x, routing, drop_and_pad=True)
    with pytest.raises(NotImplementedError, match=r"npu_moe_token_permute_with_routing_map.*num_out_tokens=5"):
        torch_npu.npu_moe_token_permute_with_routing_map(x, routing, num_out_tokens=5)
    with pytest.raises(ValueError, match="npu_moe_token_permute_with_routing_map: routing_map is of dtype float32"):
        torch_npu.npu_moe_token_permute_with_routing_map(x, routing.float())
