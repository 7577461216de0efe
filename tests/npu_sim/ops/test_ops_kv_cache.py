# SPDX-License-Identifier: Apache-2.0
"""Paged caches: writes by slot, skipped slots, reads of chosen pages; untouched memory stays as it was."""

import math

import itertools

import pytest
import torch
import torch_npu
from hypothesis import given, settings
from hypothesis import strategies as st

PAGE, BLOCKS = 4, 6


@settings(max_examples=25, deadline=None)
@given(
    slots=st.lists(st.integers(-1, PAGE * BLOCKS - 1), max_size=10).filter(
        lambda s: len({x for x in s if x >= 0}) == sum(x >= 0 for x in s)
    ),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_reshape_and_cache(slots, dtype):
    keys, values = (
        torch.full((BLOCKS, PAGE, 2, 3), math.nan, dtype=dtype),
        torch.full((BLOCKS, PAGE, 1, 5), math.nan, dtype=dtype),
    )
    key, value = torch.randn(len(slots), 2, 3).to(dtype), torch.randn(len(slots), 1, 5).to(dtype)
    kc, vc = keys.npu(), values.npu()
    torch_npu._npu_reshape_and_cache(
        key=key.npu(),
        value=value.npu(),
        key_cache=kc,
        value_cache=vc,
        slot_indices=torch.tensor(slots, dtype=torch.int32).npu(),
    )
    for i, slot in enumerate(slots):
        if slot >= 0:
            keys[slot // PAGE, slot % PAGE], values[slot // PAGE, slot % PAGE] = key[i], value[i]
    torch.testing.assert_close(kc.cpu(), keys, rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(vc.cpu(), values, rtol=0, atol=0, equal_nan=True)


def test_reshape_and_cache_takes_strided_rows():
    kc, vc = torch.zeros(2, PAGE, 1, 2).npu(), torch.zeros(2, PAGE, 1, 3).npu()
    both = torch.randn(3, 1, 5)
    key, value = both.npu().split([2, 3], -1)
    torch_npu._npu_reshape_and_cache(key, value, kc, vc, torch.tensor([1, 5, 7], dtype=torch.int32).npu())
    assert torch.equal(kc.cpu().view(-1, 2)[[1, 5, 7]], both[:, 0, :2]) and torch.equal(
        vc.cpu().view(-1, 3)[[1, 5, 7]], both[:, 0, 2:]
    )


@pytest.mark.parametrize(
    ("slots", "key", "message"),
    [
        (torch.tensor([0, 1]), None, "slot_indices is of dtype int64"),
        (torch.tensor([0, 24], dtype=torch.int32), None, "slot is 24"),
        (torch.tensor([0, -2], dtype=torch.int32), None, "slot is -2"),
        (torch.tensor([0], dtype=torch.int32), None, "key is 2 rows"),
        (torch.tensor([0, 1], dtype=torch.int32), torch.zeros(2, 1, 4), "key is of shape"),
        (torch.tensor([0, 1], dtype=torch.int32), torch.zeros(2, 1, 3, dtype=torch.bfloat16), "cache is of dtype"),
    ],
)
def test_reshape_and_cache_refuses(slots, key, message):
    cache = torch.zeros(BLOCKS, PAGE, 1, 3).npu()
    rows = torch.zeros(2, 1, 3).npu()
    with pytest.raises(ValueError, match=f"_npu_reshape_and_cache: {message}"):
        torch_npu._npu_reshape_and_cache(rows if key is None else key.npu(), rows, cache, cache.clone(), slots.npu())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("mode", "output"), [("PA", False), ("PA", True), ("PA_BNSD", True)])
def test_kv_rmsnorm_rope_cache(dtype, mode, output):
    tokens, latent, rope = 5, 8, 4
    kv, gamma = torch.randn(tokens, 1, 1, latent + rope).to(dtype), torch.rand(latent).to(dtype)
    angle = torch.rand(tokens, rope // 2) * 6
    both = torch.cat((angle, angle), -1).view(tokens, 1, 1, rope)
    slots = torch.tensor([3, -1, 0, 17, 22])
    k_cache, ckv_cache = (
        torch.zeros(BLOCKS, PAGE, 1, rope, dtype=dtype).npu(),
        torch.zeros(BLOCKS, PAGE, 1, latent, dtype=dtype).npu(),
    )
    got_k, got_c, k_rope, c_kv = torch_npu.npu_kv_rmsnorm_rope_cache(
        kv.npu(),
        gamma.npu(),
        both.cos().to(dtype).npu(),
        both.sin().to(dtype).npu(),
        slots.npu(),
        k_cache,
        ckv_cache,
        epsilon=1e-6,
        cache_mode=mode,
        is_output_kv=output,
    )
    assert got_k is k_cache and got_c is ckv_cache
    tol = 1e-5 if dtype == torch.float32 else 3e-2
    stored_c, stored_k = ckv_cache.cpu().view(-1, latent).double(), k_cache.cpu().view(-1, rope).double()
    for t in range(tokens):
        row = kv[t, 0, 0].double()
        c = row[:latent] / (row[:latent].pow(2).mean() + 1e-6).sqrt() * gamma.double()
        z = torch.complex(row[latent::2], row[latent + 1 :: 2]) * torch.exp(1j * angle[t].double())
        k = torch.cat((z.real, z.imag))
        if slots[t] >= 0:
            torch.testing.assert_close(stored_c[slots[t]], c, rtol=tol, atol=tol)
            torch.testing.assert_close(stored_k[slots[t]], k, rtol=tol, atol=tol)
        if output:
            torch.testing.assert_close(c_kv[t, 0, 0].cpu().double(), c, rtol=tol, atol=tol)
            torch.testing.assert_close(k_rope[t, 0, 0].cpu().double(), k, rtol=tol, atol=tol)
    assert k_rope.shape == (tokens, 1, 1, rope) and c_kv.shape == (tokens, 1, 1, latent)
    assert output or bool(k_rope.isnan().all() and c_kv.isnan().all())  # memory that nobody wrote
    untouched = [s for s in range(BLOCKS * PAGE) if s not in slots.tolist()]
    assert bool((stored_c[untouched] == 0).all()) and bool((stored_k[untouched] == 0).all())


def test_kv_rmsnorm_rope_cache_in_nz():
    """The same rows as with PA, each block as [columns / 16, block_size, 16]."""
    tokens, latent, rope = 5, 48, 16
    kv, gamma = torch.randn(tokens, 1, 1, latent + rope).npu(), torch.rand(latent).npu()
    both = (torch.rand(tokens, 1, 1, rope) * 6).npu()
    slots = torch.tensor([3, -1, 0, BLOCKS * PAGE - 1, PAGE]).npu()
    caches = {}
    for mode in ("PA", "PA_NZ"):
        cache = [torch.zeros(BLOCKS, PAGE, 1, width).npu() for width in (rope, latent)]
        caches[mode] = cache
        torch_npu.npu_kv_rmsnorm_rope_cache(kv, gamma, both.cos(), both.sin(), slots, *cache, cache_mode=mode)
    for rows, nz in zip(caches["PA"], caches["PA_NZ"], strict=True):
        blocks = nz.cpu().view(BLOCKS, -1, PAGE, 16).transpose(1, 2)
        assert bool(rows.any()) and torch.equal(blocks.reshape(BLOCKS, PAGE, 1, -1), rows.cpu())
    with pytest.raises(ValueError, match=r"slot is 1..24, expected -1"):
        torch_npu.npu_kv_rmsnorm_rope_cache(
            kv, gamma, both.cos(), both.sin(), slots.clamp(min=0) + 1, *caches["PA_NZ"], cache_mode="PA_NZ"
        )


def test_kv_rmsnorm_rope_cache_refuses():
    kv, gamma, turn = torch.zeros(2, 1, 1, 12).npu(), torch.ones(8).npu(), torch.zeros(2, 1, 1, 4).npu()
    k_cache, c_cache = torch.zeros(BLOCKS, PAGE, 1, 4).npu(), torch.zeros(BLOCKS, PAGE, 1, 8).npu()
    index = torch.zeros(2, dtype=torch.int64).npu()
    call = torch_npu.npu_kv_rmsnorm_rope_cache
    with pytest.raises(NotImplementedError, match=r"npu_kv_rmsnorm_rope_cache.*cache_mode='PA_BLK_NZ'"):
        call(kv, gamma, turn, turn, index, k_cache, c_cache, cache_mode="PA_BLK_NZ")
    with pytest.raises(ValueError, match=r"cache is of shape .* a multiple of 16 columns"):
        call(kv, gamma, turn, turn, index, k_cache, c_cache, cache_mode="PA_NZ")
    with pytest.raises(NotImplementedError, match=r"npu_kv_rmsnorm_rope_cache.*c_kv_scale"):
        call(kv, gamma, turn, turn, index, k_cache, c_cache, cache_mode="PA", c_kv_scale=gamma)
    with pytest.raises(ValueError, match="npu_kv_rmsnorm_rope_cache: index is of dtype int32"):
        call(kv, gamma, turn, turn, index.int(), k_cache, c_cache, cache_mode="PA")
    with pytest.raises(ValueError, match="npu_kv_rmsnorm_rope_cache: kv is of shape"):
        call(kv[..., :8], gamma, turn, turn, index, k_cache, c_cache, cache_mode="PA")
    with pytest.raises(ValueError, match="npu_kv_rmsnorm_rope_cache: cos is of shape"):
        call(kv, gamma, turn[:1], turn, index, k_cache, c_cache, cache_mode="PA")


@settings(max_examples=25, deadline=None)
@given(
    requests=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=4),
    given_starts=st.booleans(),
)
def test_paged_cache_load(requests, given_starts):
    starts, lengths = [r[0] if given_starts else 0 for r in requests], [r[1] for r in requests]
    blocks, pages = 20, 4
    keys, values = torch.randn(blocks, PAGE, 1, 3), torch.randn(blocks, PAGE, 1, 2)
    table = torch.randint(0, blocks, (len(requests), pages), dtype=torch.int32)
    key, value = torch.empty(sum(lengths), 1, 3).npu(), torch.empty(sum(lengths), 1, 2).npu()
    int32 = lambda v: torch.tensor(v, dtype=torch.int32).npu()  # noqa: E731
    torch_npu.atb.npu_paged_cache_load(
        keys.npu(),
        values.npu(),
        table.npu(),
        int32(lengths),
        seq_starts=int32(starts) if given_starts else None,
        key=key,
        value=value,
    )
    ends = int32([0, *itertools.accumulate(lengths)])
    made = torch_npu.atb.npu_paged_cache_load(
        keys.npu(), values.npu(), table.npu(), ends, seq_starts=int32(starts) if given_starts else None, cumsum=True
    )
    assert torch.equal(made[0], key) and torch.equal(made[1], value)
    row = 0
    for i, (start, length) in enumerate(zip(starts, lengths, strict=True)):
        begin = start // PAGE * PAGE  # whole blocks are copied: a start within one counts as its first position
        for position in range(begin, begin + length):
            page = table[i, position // PAGE]
            assert torch.equal(key[row].cpu(), keys[page, position % PAGE]) and torch.equal(
                value[row].cpu(), values[page, position % PAGE]
            )
            row += 1


def test_paged_cache_load_refuses():
    cache, table = torch.zeros(BLOCKS, PAGE, 1, 3).npu(), torch.zeros(1, 2, dtype=torch.int32).npu()
    lens = torch.tensor([9], dtype=torch.int32).npu()
    call = torch_npu.atb.npu_paged_cache_load
    out = torch.zeros(9, 1, 3).npu()
    with pytest.raises(ValueError, match="npu_paged_cache_load: context_lens is up to position 9"):
        call(cache, cache, table, lens, key=out, value=out)
    with pytest.raises(ValueError, match="npu_paged_cache_load: key is of shape"):
        call(cache, cache, table, lens - 1, key=out, value=out)
    with pytest.raises(ValueError, match="npu_paged_cache_load: context_lens is of dtype int64"):
        call(cache, cache, table, lens.long(), key=out, value=out)
    with pytest.raises(RuntimeError, match="npu_paged_cache_load: context_lens is on cpu"):
        call(cache, cache, table, lens.cpu(), key=out, value=out)
