# SPDX-License-Identifier: Apache-2.0
"""Attention over many requests of different lengths at once, as batched matrix products (no loop over requests).

Requests are padded to the longest of their bucket. A padded position repeats the request's last valid row instead of
reading whatever memory follows, so uninitialised cache pages (which may hold NaN) are never touched. Float32 inside.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

MAX_SCORES = 1 << 24
"""Most score elements (float32) that one batched product may hold; larger batches are cut."""


def ends_to_starts(lengths: Tensor) -> Tensor:
    """First row of each request in a packed tensor: exclusive cumulative sum, int64 [B]."""
    return torch.cumsum(lengths, 0, dtype=torch.int64) - lengths


def padded_rows(starts: Tensor, lengths: Tensor, longest: int) -> Tensor:
    """Row numbers [B, longest] of packed requests; positions past the end repeat the last row. All lengths >= 1."""
    steps = torch.arange(longest)
    return torch.minimum(steps, (lengths - 1).unsqueeze(1)) + starts.unsqueeze(1)


def page_slots(
    block_table: Tensor, lengths: Tensor, longest: int, block_size: int, first: Tensor | None = None
) -> Tensor:
    """Cache slots [B, longest] of positions first..first+length-1, clamped as in :func:`padded_rows`.

    Args:
        block_table: int32 [B, blocks], page numbers in the order of the positions.
        lengths: int64 [B], all >= 1.
        first: int64 [B], position of the first key; 0 when None.
    """
    positions = torch.minimum(torch.arange(longest), (lengths - 1).unsqueeze(1))
    if first is not None:
        positions = positions + first.unsqueeze(1)
    pages = torch.div(positions, block_size, rounding_mode="floor")
    return block_table.long().gather(1, pages) * block_size + (positions - pages * block_size)


@dataclass
class Bucket:
    """Requests computed together: their indices (None = all, in order) and padded sizes."""

    index: Tensor | None
    queries: int
    keys: int


def buckets(q_lens: Tensor, kv_lens: Tensor, heads: int) -> list[Bucket]:
    """Cut the batch so that padding at most about doubles the work and no product exceeds MAX_SCORES elements."""
    live = kv_lens.gt(0) & q_lens.gt(0)
    everyone = bool(live.all())
    index = None if everyone else live.nonzero().flatten()
    q, kv = (q_lens, kv_lens) if index is None else (q_lens[index], kv_lens[index])
    if q.numel() == 0:
        return []
    longest_q, longest_kv = int(q.max()), int(kv.max())
    area = q.numel() * longest_q * longest_kv
    wasteful = area > (1 << 18) and area > 2.5 * float((q * kv).sum())
    if not wasteful and area * heads <= MAX_SCORES:
        return [Bucket(index, longest_q, longest_kv)]
    index = torch.arange(q_lens.numel()) if index is None else index
    if wasteful:
        class_of = _power_class(q) * 64 + _power_class(kv)
        groups = [index[class_of == c] for c in class_of.unique().tolist()]
    else:
        groups = [index]
    result = []
    for group in groups:
        longest_q, longest_kv = int(q_lens[group].max()), int(kv_lens[group].max())
        size = max(1, MAX_SCORES // (longest_q * longest_kv * heads))
        for part in group.split(size):
            result.append(Bucket(part, int(q_lens[part].max()), int(kv_lens[part].max())))
    return result


def _power_class(lengths: Tensor) -> Tensor:
    return torch.ceil(torch.log2(lengths.double())).long()


KeyRows = Callable[[Tensor | None, Tensor, int], Tensor]
"""(request indices or None, their key lengths, padded length) → row numbers [b, padded length] into the key source."""

Masked = Callable[[Tensor, int], Tensor]
"""(query rows [b, Lq], padded key length Lk) → bool [Lq, Lk] or [b, Lq, Lk], True = masked."""

Fetch = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Row numbers [b, L] → keys [b, L, Hkv, Dk] and values [b, L, Hkv, Dv] in their stored dtype."""


def attend(
    query: Tensor,
    q_lens: Tensor,
    kv_lens: Tensor,
    key_rows: KeyRows,
    fetch: Fetch,
    *,
    kv_heads: int,
    v_size: int,
    scale: float,
    causal: bool = False,
    masked: Masked | None = None,
    want_lse: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """softmax(scale · q kᵀ) v per request.

    Args:
        query: packed [T, H, Dk]; T may exceed sum(q_lens), the rest is ignored.
        q_lens, kv_lens: int64 [B] on the host. Where a length is 0 the output is 0 and lse -inf.
        causal: query i of a request sees key j when j <= i + (kv_len - q_len).
        masked: a mask instead of ``causal``.

    Returns:
        out float32 [T, H, Dv] and, if wanted, lse float32 [H, T].
    """
    tokens, heads, size = query.shape
    total = int(q_lens.sum())
    starts = ends_to_starts(q_lens)
    out = lse = None
    for bucket in buckets(q_lens, kv_lens, heads):
        pick = slice(None) if bucket.index is None else bucket.index
        q_len, kv_len, width, length = q_lens[pick], kv_lens[pick], bucket.queries, bucket.keys
        batch = q_len.numel()
        q_rows = padded_rows(starts[pick], q_len, width)
        packed = bucket.index is None and batch * width == total  # every request as long as the longest: no gathering
        q = query[:total] if packed else query.index_select(0, q_rows.flatten())
        keys, values = fetch(key_rows(bucket.index, kv_len, length))
        if masked is None:
            hidden = _hidden(q_len, kv_len, width, length, causal)
        else:
            hidden = masked(q_rows, length) | _past_end(kv_len, length)
        o, row_lse = _mix(q.view(batch, width, heads, size), keys, values, hidden, scale, want_lse)
        if packed and total == tokens:
            flat_lse = None if row_lse is None else row_lse.permute(1, 0, 2).reshape(heads, total)
            return o.reshape(total, heads, v_size), flat_lse
        if out is None:
            out, lse = _nothing_seen(tokens, heads, v_size, want_lse)
        keep = (torch.arange(width) < q_len.unsqueeze(1)).flatten().nonzero().flatten()
        rows = q_rows.flatten()[keep]
        out.index_copy_(0, rows, o.reshape(batch * width, heads, v_size).index_select(0, keep))
        if lse is not None and row_lse is not None:
            lse.index_copy_(1, rows, row_lse.permute(1, 0, 2).reshape(heads, batch * width).index_select(1, keep))
    return _nothing_seen(tokens, heads, v_size, want_lse) if out is None else (out, lse)


def _nothing_seen(tokens: int, heads: int, v_size: int, want_lse: bool) -> tuple[Tensor, Tensor | None]:
    lse = torch.full((heads, tokens), float("-inf")) if want_lse else None
    return torch.zeros(tokens, heads, v_size), lse


def _mix(
    query: Tensor, keys: Tensor, values: Tensor, hidden: Tensor | None, scale: float, want_lse: bool
) -> tuple[Tensor, Tensor | None]:
    """[b, Lq, H, Dk], [b, Lk, Hkv, Dk], [b, Lk, Hkv, Dv] → float32 (out [b, Lq, H, Dv], lse [b, H, Lq] if wanted).

    The heads that share a key head become rows of one matrix product. ``hidden`` is [Lq, Lk] or [b, 1|Lq, Lk]; it
    enters as -inf in the matrix that the product is added to, which saves two passes over the scores.
    """
    batch, width, heads, size = query.shape
    length, kv_heads, v_size = values.shape[1:]
    groups = heads // kv_heads
    q = query.view(batch, width, kv_heads, groups, size).permute(0, 2, 3, 1, 4)
    q = q.reshape(batch * kv_heads, groups * width, size).float() * scale
    k = keys.permute(0, 2, 3, 1).reshape(batch * kv_heads, size, length).float()
    v = values.transpose(1, 2).reshape(batch * kv_heads, length, v_size).float()
    if hidden is None:
        scores = torch.bmm(q, k)
    else:
        bias = torch.zeros(hidden.shape).masked_fill_(hidden, float("-inf"))
        bias = bias if bias.dim() == 2 else bias[:, None, None]
        scores = bias.expand(batch, kv_heads, groups, width, length).reshape(q.shape[0], groups * width, length)
        scores = (scores.clone() if scores.data_ptr() == bias.data_ptr() else scores).baddbmm_(q, k)
    weights = torch.softmax(scores, -1)
    lse = None
    if want_lse or hidden is not None:
        peak = scores.amax(-1)
        blind = peak == float("-inf")
        if bool(blind.any()):  # a query that sees no key: softmax gives NaN
            weights.masked_fill_(blind.unsqueeze(-1), 0.0)
        if want_lse:  # the largest weight is exp(0) / norm
            lse = peak.sub_(weights.amax(-1).log_()).masked_fill_(blind, float("-inf")).view(batch, heads, width)
    out = torch.bmm(weights, v).view(batch, kv_heads, groups, width, v_size)
    return out.permute(0, 3, 1, 2, 4).reshape(batch, width, heads, v_size), lse


def _past_end(kv_len: Tensor, length: int) -> Tensor:
    return (torch.arange(length) >= kv_len.unsqueeze(1)).unsqueeze(1)


def _hidden(q_len: Tensor, kv_len: Tensor, width: int, length: int, causal: bool) -> Tensor | None:
    """Mask [Lq, Lk] (all requests alike) or [b, 1|Lq, Lk], True = hidden; None when everything is visible."""
    full = bool((kv_len == length).all())
    if not causal:
        return None if full else _past_end(kv_len, length)
    ahead = torch.arange(length) - torch.arange(width).unsqueeze(1)
    if full and bool((q_len == width).all()):
        return None if width == 1 else ahead > length - width
    return (ahead > (kv_len - q_len)[:, None, None]) | _past_end(kv_len, length)


def host_lengths(lengths: Tensor | Sequence[int]) -> Tensor:
    """Lengths as int64 on the CPU."""
    return lengths.long() if isinstance(lengths, Tensor) else torch.tensor(lengths, dtype=torch.int64)
