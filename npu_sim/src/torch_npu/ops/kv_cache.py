# SPDX-License-Identifier: Apache-2.0
"""Writing and reading paged key/value caches [blocks, block_size, heads, D] by slot (block · block_size + offset).

An NZ cache has the same shape, but each block lies in memory as [D / 16, block_size, 16]: columns in groups of 16.
"""

import torch
from torch import Tensor

from . import checks
from .registry import op
from .rotary import check_interleaved, deinterleave_rope
from .varlen import ends_to_starts

NZ_COLUMNS = 16


def nz_rows(name: str, label: str, cache: Tensor) -> Tensor:
    """The rows [blocks · block_size, 1, D] of an NZ cache, as a view to write into."""
    blocks, size, heads, width = cache.shape
    checks.true(name, label, heads == 1 and width % NZ_COLUMNS == 0, f"of shape {tuple(cache.shape)}",
                f"one head and a multiple of {NZ_COLUMNS} columns (cache_mode PA_NZ)")  # fmt: skip
    return cache.view(blocks, width // NZ_COLUMNS, size, NZ_COLUMNS).transpose(1, 2)


def scatter_nz(name: str, rows: Tensor, cache: Tensor, slots: Tensor) -> None:
    """Write rows [T, 1, D] into an NZ cache at ``slots`` [T]; slot -1 skips the row."""
    checks.true(name, "cache", cache.is_contiguous(), "not contiguous", "the whole cache tensor")
    target, size = nz_rows(name, "cache", cache), cache.shape[1]
    index = slots.long()
    if index.numel() and (int(index.min()) < -1 or int(index.max()) >= cache.shape[0] * size):
        raise checks.invalid(name, "slot", f"{int(index.min())}..{int(index.max())}",
                             f"-1 (skip) or 0..{cache.shape[0] * size - 1}")  # fmt: skip
    keep = index.ge(0).nonzero().flatten()
    index, rows = index[keep], rows[keep]
    block = torch.div(index, size, rounding_mode="floor")
    target[block, index - block * size] = rows.reshape(-1, target.shape[2], NZ_COLUMNS)


def scatter_slots(name: str, pairs: list[tuple[str, Tensor, Tensor]], slots: Tensor) -> None:
    """Write rows [T, heads, D] into caches at ``slots`` [T]; slot -1 skips the row (padding)."""
    targets = []
    for label, rows, cache in pairs:
        checks.rank(name, label, rows, 3)
        checks.same_dtype(name, **{label: rows, "cache": cache})
        checks.true(
            name,
            label,
            cache.dim() == 4 and rows.shape[1:] == cache.shape[2:],
            f"of shape {tuple(rows.shape)}",
            f"[tokens, *{tuple(cache.shape[2:])}] as its cache {tuple(cache.shape)}",
        )
        checks.true(
            name, label, rows.shape[0] == slots.numel(), f"{rows.shape[0]} rows", f"one per slot ({slots.numel()})"
        )
        checks.true(name, "cache", cache.is_contiguous(), "not contiguous", "the whole cache tensor")
        targets.append(cache.view(-1, *cache.shape[2:]))
    if slots.numel() == 0:
        return
    low, high, room = int(slots.min()), int(slots.max()), targets[0].shape[0]
    if low < -1 or high >= room:
        raise checks.invalid(name, "slot", low if low < -1 else high, f"-1 (skip) or 0..{room - 1}")
    index = slots.long()
    keep = index.ge(0).nonzero().flatten() if low < 0 else None
    for (_, rows, _), target in zip(pairs, targets, strict=True):
        if keep is None:
            target.index_copy_(0, index, rows)
        else:
            target.index_copy_(0, index[keep], rows[keep])


@op()
def _npu_reshape_and_cache(
    key: Tensor, value: Tensor, key_cache: Tensor, value_cache: Tensor, slot_indices: Tensor
) -> None:
    """Scatter key and value [T, heads, D] into their caches. slot_indices: int32 [T], -1 = skip."""
    name = "_npu_reshape_and_cache"
    checks.dtype(name, "slot_indices", slot_indices, checks.INT32)
    checks.rank(name, "slot_indices", slot_indices, 1)
    checks.true(
        name,
        "value_cache",
        key_cache.shape[:2] == value_cache.shape[:2],
        f"of shape {tuple(value_cache.shape)}",
        f"the pages of key_cache {tuple(key_cache.shape[:2])}",
    )
    scatter_slots(name, [("key", key, key_cache), ("value", value, value_cache)], slot_indices)


@op()
def npu_kv_rmsnorm_rope_cache(
    kv: Tensor,
    gamma: Tensor,
    cos: Tensor,
    sin: Tensor,
    index: Tensor,
    k_cache: Tensor,
    ckv_cache: Tensor,
    *,
    k_rope_scale: Tensor | None = None,
    c_kv_scale: Tensor | None = None,
    k_rope_offset: Tensor | None = None,
    c_kv_offset: Tensor | None = None,
    epsilon: float = 1e-5,
    cache_mode: str = "Norm",
    is_output_kv: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Norm the latent part of ``kv``, rope the rest (de-interleaved), scatter both into paged caches.

    Args:
        kv: [B, 1, S, latent + rope].   gamma: [latent].   cos, sin: [B, 1, S|1, rope].
        index: int64 [B · S] slots, -1 = skip.
        k_cache, ckv_cache: [blocks, block_size, 1, rope | latent].
        cache_mode: "PA" or "PA_BNSD" (the same), or "PA_NZ" for NZ caches.

    Returns:
        (k_cache, ckv_cache, k_rope, c_kv); the last two [B, 1, S, rope | latent]. They are NaN without
        ``is_output_kv``: the kernel leaves them undefined.
    """
    name = "npu_kv_rmsnorm_rope_cache"
    checks.only(name, ("PA", "PA_BNSD", "PA_NZ"), cache_mode=cache_mode)
    checks.absent(
        name, k_rope_scale=k_rope_scale, c_kv_scale=c_kv_scale, k_rope_offset=k_rope_offset, c_kv_offset=c_kv_offset
    )
    checks.dtype(name, "kv", kv, checks.FLOATS)
    checks.same_dtype(name, kv=kv, gamma=gamma, k_cache=k_cache, ckv_cache=ckv_cache)
    checks.dtype(name, "index", index, checks.INT64)
    latent, rope = ckv_cache.shape[-1], k_cache.shape[-1]
    checks.shape(name, "kv", kv, (-1, 1, -1, latent + rope))
    checks.shape(name, "gamma", gamma, (latent,))
    check_interleaved(name, kv[..., latent:], cos, sin)
    # Rounded once, at the end, unlike npu_rms_norm: op-plugin's test of this operator computes it so, exactly.
    wide = kv[..., :latent].float()
    c_kv = (wide / torch.sqrt(wide.square().mean(-1, keepdim=True) + epsilon) * gamma.float()).to(kv.dtype)
    k_rope = deinterleave_rope(kv[..., latent:], cos, sin)
    tokens = kv.shape[0] * kv.shape[2]
    rows = [("kv", c_kv.reshape(tokens, 1, latent), ckv_cache), ("kv", k_rope.reshape(tokens, 1, rope), k_cache)]
    if cache_mode == "PA_NZ":
        checks.true(name, "index", index.numel() == tokens, f"{index.numel()} slots", f"one per token ({tokens})")
        for _, values, cache in rows:
            scatter_nz(name, values, cache, index.flatten())
    else:
        scatter_slots(name, rows, index.flatten())
    if not is_output_kv:
        k_rope, c_kv = (torch.full_like(tensor, float("nan")) for tensor in (k_rope, c_kv))
    return k_cache, ckv_cache, k_rope, c_kv


@op("atb.npu_paged_cache_load")
def npu_paged_cache_load(
    key_cache: Tensor,
    value_cache: Tensor,
    block_table: Tensor,
    context_lens: Tensor,
    *,
    seq_starts: Tensor | None = None,
    cumsum: bool = False,
    key: Tensor | None = None,
    value: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Gather context_lens[i] positions of every request, packed, from the start of the block of seq_starts[i] on.

    A start within a block counts as the start of that block, for the kernel copies whole blocks.

    Args:
        block_table: int32 [B, pages].
        context_lens: int32 [B] on the device; with ``cumsum`` [B + 1], where each request begins and the last ends.
        seq_starts: int32 [B] on the device; 0 when None.
        key, value: [tokens, heads, D] to be written; new ones when None.

    Returns:
        (key, value).
    """
    name = "npu_paged_cache_load"
    for label, tensor in (("block_table", block_table), ("context_lens", context_lens), ("seq_starts", seq_starts)):
        if tensor is not None:
            checks.dtype(name, label, tensor, checks.INT32)
    checks.rank(name, "block_table", block_table, 2)
    lengths = context_lens.long().diff() if cumsum else context_lens.long()
    total, batch = int(lengths.sum()), lengths.numel()
    checks.shape(name, "block_table", block_table[:batch], (batch, -1))
    block_size = key_cache.shape[1]
    starts = torch.zeros_like(lengths) if seq_starts is None else seq_starts.long()
    first = torch.div(starts, block_size, rounding_mode="floor") * block_size
    last = int((first + lengths).max()) if batch else 0
    checks.true(
        name,
        "context_lens",
        last <= block_table.shape[1] * block_size,
        f"up to position {last}",
        f"at most {block_table.shape[1]} pages of {block_size}",
    )
    request = torch.repeat_interleave(torch.arange(batch), lengths)
    positions = torch.arange(total) + (first - ends_to_starts(lengths))[request]
    pages = torch.div(positions, block_size, rounding_mode="floor")
    slots = block_table.long()[request, pages] * block_size + (positions - pages * block_size)

    def load(label: str, cache: Tensor, target: Tensor | None) -> Tensor:
        checks.rank(name, f"{label}_cache", cache, 4)
        loaded = cache.reshape(-1, *cache.shape[2:]).index_select(0, slots)
        if target is None:
            return loaded
        checks.same_dtype(name, **{f"{label}_cache": cache, label: target})
        checks.shape(name, label, target, loaded.shape)
        return target.copy_(loaded)

    return load("key", key_cache, key), load("value", value_cache, value)
