# SPDX-License-Identifier: Apache-2.0
"""Latent attention against one request, one head, one query at a time in float64; caches poisoned with NaN."""

import math

import pytest
import torch
import torch_npu
from hypothesis import given, settings
from hypothesis import strategies as st

H, NOPE, ROPE, VALUE, LATENT, PAGE = 4, 8, 4, 6, 8, 16
TOLERANCE = {torch.float32: 3e-6, torch.bfloat16: 2e-2}


def one_query(query, keys, values, scale):
    """query [D], keys [L, D], values [L, Dv] → (mixture [Dv], log-sum-exp); nothing visible → (0, -inf)."""
    if len(keys) == 0:
        return torch.zeros(values.shape[-1], dtype=torch.float64), -math.inf
    scores = (keys.double() @ query.double()) * scale
    lse = torch.logsumexp(scores, 0)
    return torch.exp(scores - lse) @ values.double(), float(lse)


def ring_reference(q, k, v, q_lens, kv_lens, scale, causal, from_end=False):
    """Causal: query i sees keys 0 to i, or, from the end, those up to as far from the last key as it is from the last
    query.
    """
    out, lse = (
        torch.zeros(q.shape[0], q.shape[1], v.shape[2], dtype=torch.float64),
        torch.full((q.shape[1], q.shape[0]), -math.inf, dtype=torch.float64),
    )
    q0 = k0 = 0
    for ql, kl in zip(q_lens, kv_lens, strict=True):
        for i in range(ql):
            seen = min(i + 1 + (kl - ql if from_end else 0), kl) if causal else kl
            for h in range(q.shape[1]):
                out[q0 + i, h], lse[h, q0 + i] = one_query(
                    q[q0 + i, h], k[k0 : k0 + max(seen, 0), h], v[k0 : k0 + max(seen, 0), h], scale
                )
        q0, k0 = q0 + ql, k0 + kl
    return out, lse


def ring(q, k, v, lengths, *, causal, out=None, lse=None, **changed):
    first = out is None
    out = torch.full((q.shape[0], H, v.shape[2]), 7.0, dtype=q.dtype).npu() if first else out
    lse = torch.full((H, q.shape[0]), 7.0).npu() if first else lse
    arguments = dict(
        q_nope=q[..., :NOPE].npu(),
        q_rope=q[..., NOPE:].npu(),
        k_nope=k[..., :NOPE].npu(),
        k_rope=k[..., NOPE:].npu(),
        value=v.npu(),
        mask=torch.ones(512, 512).triu(1).npu(),
        seqlen=torch.tensor(lengths, dtype=torch.int32),
        head_num=H,
        kv_head_num=H,
        pre_out=None if first else out,
        prev_lse=None if first else lse,
        qk_scale=0.3,
        kernel_type="kernel_type_high_precision",
        mask_type="mask_type_triu" if causal else "no_mask",
        input_layout="type_bsnd",
        calc_type="calc_type_first_ring" if first else "calc_type_default",
        output=out,
        softmax_lse=lse,
    )
    torch_npu.atb.npu_ring_mla(**{**arguments, **changed})
    return out, lse


def make(tokens, dtype=torch.float32, size=NOPE + ROPE):
    return torch.randn(tokens, H, size).to(dtype)


LENGTHS = st.lists(st.integers(1, 20), min_size=1, max_size=5)


@settings(max_examples=25, deadline=None)
@given(lengths=LENGTHS, spare=st.integers(0, 3), dtype=st.sampled_from([torch.float32, torch.bfloat16]))
def test_ring_first_step_is_causal_attention(lengths, spare, dtype):
    total = sum(lengths)
    q, k, v = make(total + spare, dtype), make(total, dtype), make(total, dtype, VALUE)
    out, lse = ring(q, k, v, lengths, causal=True)
    expected, expected_lse = ring_reference(q[:total], k, v, lengths, lengths, 0.3, True)
    tol = TOLERANCE[dtype]
    torch.testing.assert_close(out[:total].cpu().double(), expected, rtol=tol, atol=tol)
    torch.testing.assert_close(lse[:, :total].cpu().double(), expected_lse, rtol=tol, atol=tol)
    assert bool((out[total:] == 7).all()) and bool((lse[:, total:] == 7).all())  # rows of nobody stay as they were


@settings(max_examples=25, deadline=None)
@given(pairs=st.lists(st.tuples(st.integers(1, 9), st.integers(0, 20)), min_size=1, max_size=5))
def test_ring_merges_cached_context(pairs):
    """New tokens first (causal), then their cached context (no mask) = attention over both at once."""
    q_lens, context = [p[0] for p in pairs], [p[1] for p in pairs]
    total = sum(q_lens)
    q, k, v = make(total), make(total), make(total, size=VALUE)
    ck, cv = make(sum(context)), make(sum(context), size=VALUE)
    out, lse = ring(q, k, v, q_lens, causal=True)
    ring(q, ck, cv, [q_lens, context], causal=False, out=out, lse=lse)
    joined_k, joined_v, a, b = [], [], 0, 0
    for n, c in pairs:
        joined_k += [ck[b : b + c], k[a : a + n]]
        joined_v += [cv[b : b + c], v[a : a + n]]
        a, b = a + n, b + c
    expected, expected_lse = ring_reference(
        q, torch.cat(joined_k), torch.cat(joined_v), q_lens, [n + c for n, c in pairs], 0.3, True, from_end=True
    )
    torch.testing.assert_close(out.cpu().double(), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(lse.cpu().double(), expected_lse, rtol=1e-5, atol=1e-5)


def test_the_triangle_starts_at_the_first_key():
    """Query i sees keys 0 to i, also of a request with more or fewer keys than queries."""
    q_lens, kv_lens = [4, 3, 2], [2, 6, 2]
    q, k, v = make(9), make(10), make(10, size=VALUE)
    out, lse = ring(q, k, v, [q_lens, kv_lens], causal=True)
    expected, expected_lse = ring_reference(q, k, v, q_lens, kv_lens, 0.3, True)
    torch.testing.assert_close(out.cpu().double(), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(lse.cpu().double(), expected_lse, rtol=1e-5, atol=1e-5)


def test_ring_makes_its_results():
    """Without output and softmax_lse, and with the options' defaults: a first ring without mask."""
    q, k, v = make(6), make(5), make(5, size=VALUE)
    lengths = torch.tensor([[4, 2], [5, 0]], dtype=torch.int32)
    given_results = ring(q, k, v, lengths.tolist(), causal=False)
    out, lse = torch_npu.atb.npu_ring_mla(
        q[..., :NOPE].npu(), q[..., NOPE:].npu(), k[..., :NOPE].npu(), k[..., NOPE:].npu(), v.npu(), None, lengths,
        H, H, qk_scale=0.3,
    )  # fmt: skip
    assert torch.equal(out[:4], given_results[0][:4]) and torch.equal(lse[:, :4], given_results[1][:, :4])
    assert bool(out[4:].isnan().all()) and bool(lse[:, 4:].isnan().all())  # nothing is written without keys


def test_ring_takes_expanded_and_strided_views():
    """vLLM-Ascend passes k_rope as an expanded view and value as a slice of the up-projection."""
    lengths = [3, 5]
    q, kv, rope = make(8), torch.randn(8, H, NOPE + VALUE), torch.randn(8, 1, ROPE)
    kvn, ropen = kv.npu(), rope.npu()
    k_nope, value = kvn.split([NOPE, VALUE], -1)
    out, _ = ring(
        q,
        make(8),
        make(8, size=VALUE),
        lengths,
        causal=True,
        k_nope=k_nope,
        k_rope=ropen.expand(8, H, ROPE),
        value=value,
    )
    expected, _ = ring_reference(
        q, torch.cat((kv[..., :NOPE], rope.expand(8, H, ROPE)), -1), kv[..., NOPE:], lengths, lengths, 0.3, True
    )
    torch.testing.assert_close(out.cpu().double(), expected, rtol=1e-5, atol=1e-5)


def test_ring_wildly_different_lengths_and_cut_batches(monkeypatch):
    from torch_npu.ops import varlen

    monkeypatch.setattr(varlen, "MAX_SCORES", 4000)
    lengths = [1, 60, 2, 3, 60, 1, 33]
    total = sum(lengths)
    q, k, v = make(total), make(total), make(total, size=VALUE)
    out, lse = ring(q, k, v, lengths, causal=True)
    expected, expected_lse = ring_reference(q, k, v, lengths, lengths, 0.3, True)
    torch.testing.assert_close(out.cpu().double(), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(lse.cpu().double(), expected_lse, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"mask_type": "mask_type_free"}, NotImplementedError, "npu_ring_mla.*mask_type='mask_type_free'"),
        ({"input_layout": "type_bnsd"}, NotImplementedError, "npu_ring_mla.*input_layout"),
        ({"kernel_type": "kernel_type_default"}, NotImplementedError, "npu_ring_mla.*kernel_type"),
        ({"calc_type": "calc_type_default"}, ValueError, "npu_ring_mla: pre_out, prev_lse is None"),
        ({"mask": None}, ValueError, "npu_ring_mla: mask is None"),
        ({"seqlen": torch.tensor([2, 2])}, ValueError, "npu_ring_mla: seqlen is of dtype int64"),
        ({"seqlen": torch.tensor([2, 9], dtype=torch.int32)}, ValueError, "npu_ring_mla: seqlen is 11 queries"),
        ({"seqlen": torch.tensor([2, -1], dtype=torch.int32)}, ValueError, "npu_ring_mla: seqlen is negative"),
        ({"softmax_lse": torch.zeros(4, H)}, ValueError, "npu_ring_mla: softmax_lse is of shape"),
        ({"output": torch.zeros(4, H, VALUE, dtype=torch.bfloat16)}, ValueError, "npu_ring_mla: output is of dtype"),
    ],
)
def test_ring_refuses(changed, error, message):
    changed = {k: v.npu() if isinstance(v, torch.Tensor) and k != "seqlen" else v for k, v in changed.items()}
    if "softmax_lse" in changed:
        changed["softmax_lse"] = changed["softmax_lse"][:3]
    with pytest.raises(error, match=message):
        ring(make(4), make(4), make(4, size=VALUE), [2, 2], causal=True, **changed)


def paged(lengths, dtype, *, blocks=40, pages=4):
    """Latent and rope caches of NaN where nothing was written, a shuffled block table, and the contiguous rows per
    request.
    """
    ckv = torch.full((blocks, PAGE, 1, LATENT), math.nan, dtype=dtype)
    kpe = torch.full((blocks, PAGE, 1, ROPE), math.nan, dtype=dtype)
    table = torch.randperm(blocks)[: len(lengths) * pages].view(len(lengths), pages).int()
    rows = []
    for i, length in enumerate(lengths):
        row = torch.randn(length, LATENT + ROPE).to(dtype)
        for p in range(length):
            ckv[table[i, p // PAGE], p % PAGE, 0], kpe[table[i, p // PAGE], p % PAGE, 0] = (
                row[p, :LATENT],
                row[p, LATENT:],
            )
        rows.append(row)
    return ckv, kpe, table, rows


def decode_reference(query, rows, scale):
    """query [B, H, LATENT + ROPE] → [B, H, LATENT]."""
    return torch.stack(
        [
            torch.stack([one_query(q, row, row[:, :LATENT], scale)[0] for q in heads])
            for heads, row in zip(query, rows, strict=True)
        ]
    )


DECODE_LENGTHS = st.lists(st.integers(0, 4 * PAGE), min_size=1, max_size=6)


@settings(max_examples=30, deadline=None)
@given(lengths=DECODE_LENGTHS, dtype=st.sampled_from([torch.float32, torch.bfloat16]))
def test_three_decode_forms_agree_with_the_formula(lengths, dtype):
    ckv, kpe, table, rows = paged(lengths, dtype)
    query = torch.randn(len(lengths), H, LATENT + ROPE).to(dtype)
    expected, tol = decode_reference(query, rows, 0.2), TOLERANCE[dtype]
    lens = torch.tensor(lengths, dtype=torch.int32)
    q, t, c, r = query.npu(), table.npu(), ckv.npu(), kpe.npu()

    out = torch.full((len(lengths), H, LATENT), 7.0, dtype=dtype).npu()
    torch_npu._npu_paged_attention_mla(
        query=q,
        key_cache=torch.cat((c, r), -1),
        num_kv_heads=1,
        num_heads=H,
        scale_value=0.2,
        block_table=t,
        context_lens=lens,
        mla_vheadsize=LATENT,
        out=out,
    )
    torch.testing.assert_close(out.cpu().double(), expected, rtol=tol, atol=tol)

    out = torch_npu.atb.npu_multi_head_latent_attention(q[..., :LATENT], q[..., LATENT:], c, r, t, lens, H, 0.2, 1)
    torch.testing.assert_close(out.cpu().double(), expected, rtol=tol, atol=tol)

    out, _ = fused(q[:, :, None, :], c, r, t, lengths)
    assert out.shape == (len(lengths), H, 1, LATENT) and out.dtype == dtype
    torch.testing.assert_close(out[:, :, 0].cpu().double(), expected, rtol=tol, atol=tol)


def fused(query, ckv, kpe, table, lengths, **changed):
    key = ckv.view(-1, 1, PAGE, LATENT)
    arguments = dict(
        query_rope=query[..., LATENT:],
        key_rope=kpe.view(-1, 1, PAGE, ROPE),
        num_heads=H,
        num_key_value_heads=1,
        input_layout="BNSD",
        atten_mask=None,
        sparse_mode=0,
        scale=0.2,
        antiquant_mode=0,
        antiquant_scale=None,
        block_table=table,
        block_size=PAGE,
        actual_seq_lengths_kv=lengths,
        actual_seq_lengths=None,
    )
    return torch_npu.npu_fused_infer_attention_score(query[..., :LATENT], key, key, **{**arguments, **changed})


def test_fused_score_on_an_nz_cache():
    """BSND and [blocks, 1, columns / 16, block_size, 16] as vLLM-Ascend has them with enable_kv_nz."""
    lengths, table = [9, 0, 20], torch.tensor([[2, 0], [0, 0], [1, 3]], dtype=torch.int32).npu()
    latent, rope = torch.randn(4, PAGE, 32), torch.randn(4, PAGE, 16)
    query, turned = torch.randn(3, 1, H, 32).npu(), torch.randn(3, 1, H, 16).npu()

    def score(layout, query, turned, key, key_rope):
        return torch_npu.npu_fused_infer_attention_score(
            query, key.npu(), key.npu(), query_rope=turned, key_rope=key_rope.npu(), num_heads=H, scale=0.2,
            num_key_value_heads=1, input_layout=layout, block_table=table, block_size=PAGE,
            actual_seq_lengths_kv=lengths,
        )[0].cpu()  # fmt: skip

    nz = [cache.view(4, PAGE, -1, 16).transpose(1, 2).unsqueeze(1).contiguous() for cache in (latent, rope)]
    plain = score("BNSD", query.transpose(1, 2), turned.transpose(1, 2), latent.unsqueeze(1), rope.unsqueeze(1))
    found = score("BSND", query, turned, *nz)
    assert found.shape == (3, 1, H, 32) and torch.equal(found.transpose(1, 2), plain) and bool(plain[0].any())


def test_fused_score_with_several_queries_per_request():
    """TND, sparse mode 3 (speculative decoding): causal, aligned at the end; a trailing row belongs to nobody."""
    lengths, counts = [9, 20, 5], [2, 1, 3]
    ckv, kpe, table, rows = paged(lengths, torch.float32)
    query = torch.randn(7, H, LATENT + ROPE)
    mask = torch.ones(2048, 2048, dtype=torch.bool).triu(1).npu()
    ends = [sum(counts[: i + 1]) for i in range(3)]
    out, _ = fused(
        query.npu(),
        ckv.npu(),
        kpe.npu(),
        table.npu(),
        lengths,
        input_layout="TND",
        sparse_mode=3,
        atten_mask=mask,
        actual_seq_lengths=ends,
    )
    padded = torch.zeros(3, 3, H, LATENT + ROPE)  # the same in BSND, each request with three queries
    for request, (end, count) in enumerate(zip(ends, counts, strict=True)):
        padded[request, 3 - count :] = query[end - count : end]
    same, zero = fused(
        padded.npu(), ckv.npu(), kpe.npu(), table.npu(), lengths, input_layout="BSND", sparse_mode=3, atten_mask=mask,
        inner_precise=2,
    )  # fmt: skip
    for request, (end, count) in enumerate(zip(ends, counts, strict=True)):
        torch.testing.assert_close(same[request, 3 - count :], out[end - count : end])
    assert zero.tolist() == [0]
    row = 0
    for length, count, cache in zip(lengths, counts, rows, strict=True):
        for i in range(count):
            seen = cache[: length - count + i + 1]
            for h in range(H):
                expected = one_query(query[row, h], seen, seen[:, :LATENT], 0.2)[0]
                torch.testing.assert_close(out[row, h].cpu().double(), expected, rtol=1e-5, atol=1e-5)
            row += 1


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"query_rope": None}, NotImplementedError, "npu_fused_infer_attention_score.*query_rope=None"),
        ({"block_table": None}, NotImplementedError, "npu_fused_infer_attention_score.*block_table=None"),
        ({"input_layout": "BSH"}, NotImplementedError, "npu_fused_infer_attention_score.*input_layout='BSH'"),
        ({"sparse_mode": 2}, NotImplementedError, "npu_fused_infer_attention_score.*sparse_mode=2"),
        ({"sparse_mode": 3}, ValueError, "npu_fused_infer_attention_score: atten_mask is None"),
        ({"inner_precise": 4}, NotImplementedError, "npu_fused_infer_attention_score.*inner_precise=4"),
        ({"antiquant_mode": 1}, NotImplementedError, "npu_fused_infer_attention_score.*antiquant_mode"),
        ({"softmax_lse_flag": True}, NotImplementedError, "npu_fused_infer_attention_score.*softmax_lse_flag"),
        ({"num_heads": 3}, ValueError, "npu_fused_infer_attention_score: query is of shape"),
        ({"block_size": 32}, ValueError, "npu_fused_infer_attention_score: key is of shape"),
        ({"actual_seq_lengths_kv": [65]}, ValueError, "npu_fused_infer_attention_score: context length is 65"),
        ({"actual_seq_lengths_kv": [1, 1]}, ValueError, "npu_fused_infer_attention_score: block_table is of 1 rows"),
    ],
)
def test_fused_score_refuses(changed, error, message):
    ckv, kpe, table, _ = paged([3], torch.float32)
    with pytest.raises(error, match=message):
        fused(torch.randn(1, H, 1, LATENT + ROPE).npu(), ckv.npu(), kpe.npu(), table.npu(), [3], **changed)


def test_fused_score_refuses_tensors_for_lengths_and_cpu_cache():
    ckv, kpe, table, _ = paged([3], torch.float32)
    query = torch.randn(1, H, 1, LATENT + ROPE).npu()
    with pytest.raises(RuntimeError, match="npu_fused_infer_attention_score: actual_seq_lengths_kv is on cpu"):
        fused(query, ckv.npu(), kpe.npu(), table.npu(), torch.tensor([3]))
    with pytest.raises(RuntimeError, match="npu_fused_infer_attention_score: key is on cpu"):
        fused(query, ckv, kpe.npu(), table.npu(), [3])


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"num_kv_heads": 2}, NotImplementedError, "_npu_paged_attention_mla.*num_kv_heads=2"),
        ({"context_lens": torch.tensor([3])}, ValueError, "_npu_paged_attention_mla: context_lens is of dtype int64"),
        (
            {"context_lens": torch.tensor([65], dtype=torch.int32)},
            ValueError,
            "_npu_paged_attention_mla: context length is 65",
        ),
        ({"mla_vheadsize": LATENT - 1}, ValueError, "_npu_paged_attention_mla: out is of shape"),
        ({"num_heads": 2}, ValueError, "_npu_paged_attention_mla: query is of shape"),
    ],
)
def test_paged_mla_refuses(changed, error, message):
    ckv, kpe, table, _ = paged([3], torch.float32)
    arguments = dict(
        query=torch.randn(1, H, LATENT + ROPE).npu(),
        key_cache=torch.cat((ckv, kpe), -1).npu(),
        num_kv_heads=1,
        num_heads=H,
        scale_value=1.0,
        block_table=table.npu(),
        context_lens=torch.tensor([3], dtype=torch.int32),
        mla_vheadsize=LATENT,
        out=torch.empty(1, H, LATENT).npu(),
    )
    with pytest.raises(error, match=message):
        torch_npu._npu_paged_attention_mla(**{**arguments, **changed})
    with pytest.raises(ValueError, match="_npu_paged_attention_mla: block_table is of dtype int64"):
        torch_npu._npu_paged_attention_mla(**{**arguments, "block_table": table.long().npu()})
