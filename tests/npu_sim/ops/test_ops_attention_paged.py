# SPDX-License-Identifier: Apache-2.0
"""Dense-model attention against one query at a time in float64; caches poisoned with NaN."""

import math

import pytest
import torch
import torch_npu
from hypothesis import given, settings
from hypothesis import strategies as st

HEADS, KV_HEADS, SIZE, PAGE, SCALE = 4, 2, 8, 16, 0.35
TOLERANCE = {torch.float32: 3e-6, torch.bfloat16: 2e-2}


def attention(query, keys, values):
    """query [H, D] on keys, values [L, Hkv, D] → [H, D]."""
    if len(keys) == 0:
        return torch.zeros(query.shape, dtype=torch.float64)
    out = []
    for h, q in enumerate(query.double()):
        kv = h // (query.shape[0] // keys.shape[1])
        weights = torch.softmax(SCALE * keys[:, kv].double() @ q, 0)
        out.append(weights @ values[:, kv].double())
    return torch.stack(out)


def paged(lengths, dtype, blocks=40, pages=4):
    keys = torch.full((blocks, PAGE, KV_HEADS, SIZE), math.nan, dtype=dtype)
    values = keys.clone()
    table = torch.randperm(blocks)[: len(lengths) * pages].view(len(lengths), pages).int()
    rows = []
    for i, length in enumerate(lengths):
        k, v = torch.randn(length, KV_HEADS, SIZE).to(dtype), torch.randn(length, KV_HEADS, SIZE).to(dtype)
        for p in range(length):
            keys[table[i, p // PAGE], p % PAGE], values[table[i, p // PAGE], p % PAGE] = k[p], v[p]
        rows.append((k, v))
    return keys, values, table, rows


def int32(values):
    return torch.tensor(values, dtype=torch.int32)


COMMON = dict(num_kv_heads=KV_HEADS, num_heads=HEADS, scale_value=SCALE)


@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 4 * PAGE), min_size=1, max_size=6),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    spare=st.integers(0, 2),
)
def test_paged_decode(lengths, dtype, spare):
    keys, values, table, rows = paged(lengths, dtype)
    query = torch.randn(len(lengths) + spare, HEADS, SIZE).to(dtype)
    out = torch.full((len(lengths) + spare, HEADS * SIZE), 7.0, dtype=dtype).npu()
    torch_npu._npu_paged_attention(
        query=query.npu(),
        key_cache=keys.npu(),
        value_cache=values.npu(),
        block_table=table.npu(),
        context_lens=int32(lengths),
        out=out,
        **COMMON,
    )
    expected = torch.stack([attention(q, k, v) for q, (k, v) in zip(query, rows, strict=False)])
    torch.testing.assert_close(
        out[: len(lengths)].cpu().double(), expected.flatten(1), rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype]
    )
    assert bool((out[len(lengths) :] == 7).all())


@settings(max_examples=20, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 20), min_size=1, max_size=5),
    spare=st.integers(0, 2),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_flash_attention(lengths, spare, dtype):
    total = sum(lengths)
    query = torch.randn(total + spare, HEADS, SIZE).to(dtype)
    key, value = (torch.randn(total + spare, KV_HEADS, SIZE).to(dtype) for _ in range(2))
    mask = torch.ones(32, 32).triu(1).to(dtype)
    out = torch.full((total + spare, HEADS, SIZE), 7.0, dtype=dtype).npu()
    torch_npu._npu_flash_attention(
        query=query.npu(), key=key.npu(), value=value.npu(), mask=mask.npu(), seq_len=int32(lengths), out=out, **COMMON
    )
    start, expected = 0, []
    for length in lengths:
        expected += [
            attention(query[start + i], key[start : start + i + 1], value[start : start + i + 1]) for i in range(length)
        ]
        start += length
    torch.testing.assert_close(
        out[:total].cpu().double(), torch.stack(expected), rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype]
    )
    assert bool((out[total:] == 7).all())


def test_flash_attention_with_narrower_values():
    """The result has the values' head size; a mask may have a leading dimension of one."""
    query, key, value = torch.randn(4, HEADS, SIZE), torch.randn(4, KV_HEADS, SIZE), torch.randn(4, KV_HEADS, SIZE - 3)
    out = torch.empty(4, HEADS, SIZE - 3).npu()
    torch_npu._npu_flash_attention(
        query=query.npu(), key=key.npu(), value=value.npu(), mask=torch.ones(1, 4, 4).triu(1).npu(),
        seq_len=int32([4]), out=out, **COMMON,
    )  # fmt: skip
    expected = torch.stack([attention(query[i], key[: i + 1], value[: i + 1]) for i in range(4)])
    torch.testing.assert_close(out.cpu().double().flatten(1), expected.flatten(1), rtol=1e-5, atol=1e-5)


def test_flash_attention_reads_its_mask():
    query, key, value = torch.randn(5, HEADS, SIZE), torch.randn(5, KV_HEADS, SIZE), torch.randn(5, KV_HEADS, SIZE)
    mask = torch.rand(5, 5) > 0.5
    mask[:, 0] = False
    out = torch.empty(5, HEADS, SIZE).npu()
    torch_npu._npu_flash_attention(
        query=query.npu(),
        key=key.npu(),
        value=value.npu(),
        mask=mask.float().mul(-10000).npu(),
        seq_len=int32([5]),
        out=out,
        **COMMON,
    )
    expected = torch.stack([attention(query[i], key[~mask[i]], value[~mask[i]]) for i in range(5)])
    torch.testing.assert_close(out.cpu().double(), expected, rtol=1e-5, atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(
    pairs=st.lists(st.tuples(st.integers(1, 12), st.integers(0, 40)), min_size=1, max_size=5), splitfuse=st.booleans()
)
def test_prefill_with_cached_context(pairs, splitfuse):
    new, context = [p[0] for p in pairs], [sum(p) for p in pairs]
    keys, values, table, rows = paged(context, torch.float32)
    total = sum(new)
    query, out = torch.randn(total, HEADS, SIZE), torch.empty(total, HEADS, SIZE).npu()
    positions = torch.cat([torch.arange(c - n, c) for n, c in zip(new, context, strict=True)])
    arguments = dict(
        query=query.npu(),
        key_cache=keys.npu(),
        value_cache=values.npu(),
        block_table=table.npu(),
        seq_len=int32(new),
        context_lens=int32(context),
        out=out,
        **COMMON,
    )
    if splitfuse:
        mask = (torch.arange(max(context)) > positions.unsqueeze(1)).float() * -10000
        torch_npu._npu_paged_attention_splitfuse(mask=mask.npu(), **arguments)
    else:
        torch_npu._npu_flash_attention_qlens(mask=torch.ones(128, 128).triu(1).npu(), **arguments)
    expected, row = [], 0
    for n, c, (k, v) in zip(new, context, rows, strict=True):
        for i in range(n):
            expected.append(attention(query[row], k[: c - n + i + 1], v[: c - n + i + 1]))
            row += 1
    torch.testing.assert_close(out.cpu().double(), torch.stack(expected), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"context_lens": torch.tensor([3])}, ValueError, "_npu_paged_attention: context_lens is of dtype int64"),
        ({"context_lens": int32([65])}, ValueError, "_npu_paged_attention: context length is 65"),
        ({"context_lens": int32([-1])}, ValueError, "_npu_paged_attention: context_lens is negative"),
        ({"num_heads": 2}, ValueError, "_npu_paged_attention: query is of shape"),
        ({"num_kv_heads": 4}, ValueError, "_npu_paged_attention: key_cache is of 2 heads"),
        ({"workspace": torch.zeros(1)}, NotImplementedError, "_npu_paged_attention.*workspace"),
    ],
)
def test_paged_decode_refuses(changed, error, message):
    keys, values, table, _ = paged([3], torch.float32)
    arguments = dict(
        query=torch.randn(1, HEADS, SIZE).npu(),
        key_cache=keys.npu(),
        value_cache=values.npu(),
        block_table=table.npu(),
        context_lens=int32([3]),
        out=torch.empty(1, HEADS, SIZE).npu(),
        **COMMON,
    )
    changed = {k: v.npu() if k == "workspace" else v for k, v in changed.items()}
    with pytest.raises(error, match=message):
        torch_npu._npu_paged_attention(**{**arguments, **changed})
    with pytest.raises(ValueError, match="_npu_paged_attention: out is of dtype"):
        torch_npu._npu_paged_attention(**{**arguments, "out": torch.empty(1, HEADS, SIZE).bfloat16().npu()})


def test_prefill_refuses():
    query, kv = torch.randn(4, HEADS, SIZE).npu(), torch.randn(4, KV_HEADS, SIZE).npu()
    mask, out = torch.zeros(3, 3).npu(), torch.empty(4, HEADS, SIZE).npu()
    with pytest.raises(ValueError, match="_npu_flash_attention: mask is of shape"):
        torch_npu._npu_flash_attention(query=query, key=kv, value=kv, mask=mask, seq_len=int32([4]), out=out, **COMMON)
    with pytest.raises(ValueError, match="_npu_flash_attention: seq_len is 5 tokens"):
        torch_npu._npu_flash_attention(
            query=query, key=kv, value=kv, mask=mask, seq_len=int32([2, 3]), out=out, **COMMON
        )
    keys, values, table, _ = paged([3], torch.float32)
    arguments = dict(
        query=query, key_cache=keys.npu(), value_cache=values.npu(), block_table=table.npu(), out=out, **COMMON
    )
    with pytest.raises(ValueError, match="_npu_paged_attention_splitfuse: context_lens is shorter"):
        torch_npu._npu_paged_attention_splitfuse(
            mask=torch.zeros(4, 8).npu(), seq_len=int32([4]), context_lens=int32([3]), **arguments
        )
    with pytest.raises(ValueError, match="_npu_paged_attention_splitfuse: mask is of shape"):
        torch_npu._npu_paged_attention_splitfuse(
            mask=torch.zeros(4, 2).npu(), seq_len=int32([2]), context_lens=int32([3]), **arguments
        )
