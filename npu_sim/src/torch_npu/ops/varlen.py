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
) -> tuple[Tensor, Tensor]:
    """softmax(scale · q kᵀ) v per request.

    Args:
        query: packed [T, H, Dk]; T may exceed sum(q_lens), the rest is ignored.
        q_lens, kv_lens: int64 [B] on the host. Where a length is 0 the output is 0 and lse -inf.
        causal: query i of a request sees key j when j <= i + (kv_len - q_len).
        masked: a mask instead of ``causal``.

    Returns:
        out float32 [T, H, Dv] and lse float32 [H, T].
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
        o, row_lse = _mix(q.view(batch, width, heads, size), keys, values, hidden, scale)
        if packed and total == tokens:
            return o.reshape(total, heads, v_size), row_lse.permute(1, 0, 2).reshape(heads, total)
        if out is None or lse is None:
            out, lse = _nothing_seen(tokens, heads, v_size)
        keep = torch.arange(width) < q_len.unsqueeze(1)
        out[q_rows[keep]] = o[keep]
        lse[:, q_rows[keep]] = row_lse.permute(1, 0, 2)[:, keep]
    return _nothing_seen(tokens, heads, v_size) if out is None or lse is None else (out, lse)


def _nothing_seen(tokens: int, heads: int, v_size: int) -> tuple[Tensor, Tensor]:
    return torch.zeros(tokens, heads, v_size), torch.full((heads, tokens), float("-inf"))


def _mix(query: Tensor, keys: Tensor, values: Tensor, hidden: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
    """[b, Lq, H, Dk], [b, Lk, Hkv, Dk], [b, Lk, Hkv, Dv] → float32 (out [b, Lq, H, Dv], lse [b, H, Lq]).

    The heads that share a key head become rows of one matrix product. ``hidden`` is [Lq, Lk] or [b, 1|Lq, Lk].
    """
    batch, width, heads, size = query.shape
    length, kv_heads, v_size = values.shape[1:]
    groups = heads // kv_heads
    q = query.view(batch, width, kv_heads, groups, size).permute(0, 2, 3, 1, 4)
    q = q.reshape(batch * kv_heads, groups * width, size).float()
    k = keys.permute(0, 2, 3, 1).reshape(batch * kv_heads, size, length).float()
    v = values.transpose(1, 2).reshape(batch * kv_heads, length, v_size).float()
    scores = torch.bmm(q, k).mul_(scale).view(batch, kv_heads, groups, width, length)
    if hidden is not None:
        scores.masked_fill_(hidden if hidden.dim() == 2 else hidden[:, None, None], float("-inf"))
    peak = scores.amax(-1, keepdim=True)
    # A row that sees no key has peak -inf; exp(-inf - 0) = 0 keeps it at zero instead of NaN.
    weights = scores.sub_(peak.masked_fill(peak == float("-inf"), 0.0)).exp_()
    norm = weights.sum(-1, keepdim=True)
    out = torch.bmm(weights.view(batch * kv_heads, groups * width, length), v)
    out = out.view(batch, kv_heads, groups, width, v_size).div_(norm.clamp_min(torch.finfo(torch.float32).tiny))
    return (
        out.permute(0, 3, 1, 2, 4).reshape(batch, width, heads, v_size),
        norm.log_().add_(peak).view(batch, heads, width),
    )


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
