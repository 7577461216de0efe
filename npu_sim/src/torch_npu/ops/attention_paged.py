# SPDX-License-Identifier: Apache-2.0
"""Inference attention of the dense models (Llama, Qwen): packed prefill and paged decode, with grouped key/value heads.

Caches are [blocks, block_size, Hkv, D]; lengths are int32 tensors on the host, as ATB reads them.
"""

import torch
from torch import Tensor

from . import checks
from .attention_mla import check_block_table, check_lengths
from .registry import op
from .varlen import Fetch, KeyRows, attend, ends_to_starts, padded_rows, page_slots


def _check_heads(name: str, query: Tensor, num_heads: int, num_kv_heads: int, value_size: int, out: Tensor) -> None:
    checks.dtype(name, "query", query, checks.FLOATS)
    checks.rank(name, "query", query, 3)
    checks.true(name, "query", query.shape[1] == num_heads, f"of shape {tuple(query.shape)}", f"[T, {num_heads}, D]")
    checks.true(
        name, "num_heads", num_heads % num_kv_heads == 0, num_heads, f"a multiple of num_kv_heads={num_kv_heads}"
    )
    elements = query.shape[0] * num_heads * value_size
    checks.true(
        name,
        "out",
        out.numel() == elements,
        f"of shape {tuple(out.shape)}",
        f"{elements} elements, value's for each head",
    )
    checks.same_dtype(name, query=query, out=out)


def _paged(
    name: str, key_cache: Tensor, value_cache: Tensor, num_kv_heads: int, block_table: Tensor, lengths: Tensor
) -> tuple[KeyRows, Fetch]:
    """Row numbering and gathering for a paged cache."""
    for label, cache in (("key_cache", key_cache), ("value_cache", value_cache)):
        checks.rank(name, label, cache, 4)
        checks.true(
            name, label, cache.shape[2] == num_kv_heads, f"of {cache.shape[2]} heads", f"num_kv_heads={num_kv_heads}"
        )
        checks.true(name, label, cache.is_contiguous(), "not contiguous", "the whole cache tensor")
    block_size = key_cache.shape[1]
    check_block_table(name, block_table, lengths, block_size)
    table = block_table[: lengths.numel()]
    flat_key, flat_value = key_cache.view(-1, *key_cache.shape[2:]), value_cache.view(-1, *value_cache.shape[2:])

    def rows(pick: Tensor | None, lens: Tensor, longest: int) -> Tensor:
        return page_slots(table if pick is None else table[pick], lens, longest, block_size)

    def fetch(index: Tensor) -> tuple[Tensor, Tensor]:
        flat = index.flatten()
        return (
            flat_key.index_select(0, flat).view(*index.shape, *flat_key.shape[1:]),
            flat_value.index_select(0, flat).view(*index.shape, *flat_value.shape[1:]),
        )

    return rows, fetch


def _check_square_mask(name: str, mask: Tensor, least: int) -> None:
    checks.rank(name, "mask", mask, 2)
    checks.true(
        name,
        "mask",
        mask.shape[0] == mask.shape[1] and mask.shape[0] >= least,
        f"of shape {tuple(mask.shape)}",
        f"square with at least {least} rows",
    )


@op(host=("seq_len",))
def _npu_flash_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor,
    seq_len: Tensor,
    scale_value: float,
    num_heads: int,
    num_kv_heads: int,
    out: Tensor,
) -> None:
    """Prefill of packed requests without cached context: query, key [T, H | Hkv, D], value [T, Hkv, Dv] → ``out``.

    mask: [S, S] or [1, S, S] with S at least the longest request; non-zero = masked.
    """
    name = "_npu_flash_attention"
    checks.rank(name, "value", value, 3)
    _check_heads(name, query, num_heads, num_kv_heads, value.shape[2], out)
    mask = mask[0] if mask.dim() == 3 and mask.shape[0] == 1 else mask
    checks.same_dtype(name, query=query, key=key, value=value)
    checks.shape(name, "key", key, (-1, num_kv_heads, query.shape[2]))
    checks.shape(name, "value", value, (key.shape[0], num_kv_heads, -1))
    lengths = check_lengths(name, "seq_len", seq_len)
    total = int(lengths.sum())
    checks.true(
        name,
        "seq_len",
        total <= min(query.shape[0], key.shape[0]),
        f"{total} tokens in all",
        f"at most {query.shape[0]}",
    )
    _check_square_mask(name, mask, int(lengths.max()) if lengths.numel() else 0)
    starts = ends_to_starts(lengths)
    hidden = mask != 0

    def rows(pick: Tensor | None, lens: Tensor, longest: int) -> Tensor:
        return padded_rows(starts if pick is None else starts[pick], lens, longest)

    def fetch(index: Tensor) -> tuple[Tensor, Tensor]:
        flat = index.flatten()
        return (
            key.index_select(0, flat).view(*index.shape, *key.shape[1:]),
            value.index_select(0, flat).view(*index.shape, *value.shape[1:]),
        )

    result = attend(
        query,
        lengths,
        lengths,
        rows,
        fetch,
        kv_heads=num_kv_heads,
        v_size=value.shape[2],
        scale=scale_value,
        masked=lambda q_rows, longest: hidden[: q_rows.shape[1], :longest],
    )[0]
    out.view(query.shape[0], num_heads, result.shape[2])[:total].copy_(result[:total])


@op(host=("seq_len", "context_lens"))
def _npu_flash_attention_qlens(
    query: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    block_table: Tensor,
    mask: Tensor,
    seq_len: Tensor,
    context_lens: Tensor,
    num_kv_heads: int,
    num_heads: int,
    scale_value: float,
    out: Tensor,
) -> None:
    """Prefill with cached context; causal, aligned at the end. ``mask`` is the 128x128 template and is not read."""
    _context_attention(
        "_npu_flash_attention_qlens",
        query,
        key_cache,
        value_cache,
        block_table,
        seq_len,
        context_lens,
        num_kv_heads,
        num_heads,
        scale_value,
        out,
        None,
    )


@op(host=("seq_len", "context_lens"))
def _npu_paged_attention_splitfuse(
    query: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    mask: Tensor,
    block_table: Tensor,
    seq_len: Tensor,
    context_lens: Tensor,
    num_kv_heads: int,
    num_heads: int,
    scale_value: float,
    out: Tensor,
) -> None:
    """Chunked prefill and decode mixed. seq_len: new tokens per request; context_lens: keys per request (both int32,
    host).

    mask: [T, S], one row per token with S at least the longest context; non-zero = masked.
    """
    name = "_npu_paged_attention_splitfuse"
    checks.rank(name, "mask", mask, 2)
    longest = int(context_lens.max()) if context_lens.numel() else 0
    checks.true(
        name,
        "mask",
        mask.shape[0] >= int(seq_len.sum()) and mask.shape[1] >= longest,
        f"of shape {tuple(mask.shape)}",
        f"a row per token and at least {longest} columns",
    )
    _context_attention(
        name,
        query,
        key_cache,
        value_cache,
        block_table,
        seq_len,
        context_lens,
        num_kv_heads,
        num_heads,
        scale_value,
        out,
        mask != 0,
    )


def _context_attention(
    name: str,
    query: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    block_table: Tensor,
    seq_len: Tensor,
    context_lens: Tensor,
    num_kv_heads: int,
    num_heads: int,
    scale: float,
    out: Tensor,
    hidden: Tensor | None,
) -> None:
    _check_heads(name, query, num_heads, num_kv_heads, value_cache.shape[3], out)
    checks.same_dtype(name, query=query, key_cache=key_cache, value_cache=value_cache)
    q_lens, kv_lens = check_lengths(name, "seq_len", seq_len), check_lengths(name, "context_lens", context_lens)
    checks.shape(name, "context_lens", context_lens, seq_len.shape)
    total = int(q_lens.sum())
    checks.true(name, "seq_len", total <= query.shape[0], f"{total} tokens in all", f"at most {query.shape[0]}")
    checks.true(
        name,
        "context_lens",
        bool((kv_lens >= q_lens).all()),
        "shorter than seq_len",
        "context including the new tokens",
    )
    rows, fetch = _paged(name, key_cache, value_cache, num_kv_heads, block_table, kv_lens)
    masked = None if hidden is None else lambda q_rows, longest: hidden[:, :longest][q_rows]
    result = attend(
        query,
        q_lens,
        kv_lens,
        rows,
        fetch,
        kv_heads=num_kv_heads,
        v_size=value_cache.shape[3],
        scale=scale,
        causal=hidden is None,
        masked=masked,
    )[0]
    out.view(query.shape[0], num_heads, result.shape[2])[:total].copy_(result[:total])


@op(host=("context_lens",))
def _npu_paged_attention(
    query: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    num_kv_heads: int,
    num_heads: int,
    scale_value: float,
    block_table: Tensor,
    context_lens: Tensor,
    out: Tensor,
    workspace: Tensor | None = None,
) -> None:
    """Decode, one query per request: query [B, H, D] → ``out``; a context length of 0 (padding) gives 0."""
    name = "_npu_paged_attention"
    _check_heads(name, query, num_heads, num_kv_heads, value_cache.shape[3], out)
    checks.absent(name, workspace=workspace)
    checks.same_dtype(name, query=query, key_cache=key_cache, value_cache=value_cache)
    lengths = check_lengths(name, "context_lens", context_lens)
    count = lengths.numel()
    checks.true(
        name, "context_lens", count <= query.shape[0], f"for {count} requests", f"at most {query.shape[0]} query rows"
    )
    rows, fetch = _paged(name, key_cache, value_cache, num_kv_heads, block_table, lengths)
    result = attend(
        query[:count],
        torch.ones_like(lengths),
        lengths,
        rows,
        fetch,
        kv_heads=num_kv_heads,
        v_size=value_cache.shape[3],
        scale=scale_value,
    )[0]
    out.view(query.shape[0], num_heads, result.shape[2])[:count].copy_(result)
