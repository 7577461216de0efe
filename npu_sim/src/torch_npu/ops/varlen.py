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
    masked: Callable[[Tensor, Tensor | None, int], Tensor] | None = None,
    want_lse: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """softmax(scale · q kᵀ) v per request.

    Args:
        query: packed [T, H, Dk]; T may exceed sum(q_lens), the rest is ignored.
        q_lens, kv_lens: int64 [B] on the host. Where a length is 0 the output is 0 and lse -inf.
        causal: query i of a request sees key j when j <= i + (kv_len - q_len).
        masked: instead of ``causal``: (query rows [b, Lq], request indices, Lk) → bool [b, Lq, Lk] or [Lq, Lk], True = masked.

    Returns:
        out float32 [T, H, Dv] and, if wanted, lse float32 [H, T].
    """
    tokens, heads, size = query.shape
    total = int(q_lens.sum())
    groups = heads // kv_heads
    out: Tensor | None = None
    lse: Tensor | None = None
    starts = ends_to_starts(q_lens)
    for bucket in buckets(q_lens, kv_lens, heads):
        pick = bucket.index
        q_len, kv_len, start = (
            (q_lens, kv_lens, starts) if pick is None else (q_lens[pick], kv_lens[pick], starts[pick])
        )
        batch, width, length = q_len.numel(), bucket.queries, bucket.keys
        uniform = pick is None and batch * width == total
        q_rows = None if uniform and masked is None else padded_rows(start, q_len, width)
        q = query[:total] if uniform else query.index_select(0, q_rows.flatten())  # type: ignore[union-attr]  # set unless uniform
        q = (
            q.reshape(batch, width, kv_heads, groups, size)
            .permute(0, 2, 3, 1, 4)
            .reshape(batch * kv_heads, groups * width, size)
        )
        keys, values = fetch(key_rows(pick, kv_len, length))
        keys = keys.permute(0, 2, 3, 1).reshape(batch * kv_heads, size, length)
        values = values.transpose(1, 2).reshape(batch * kv_heads, length, v_size)
        scores = torch.bmm(q.float(), keys.float()).mul_(scale).view(batch, kv_heads, groups, width, length)
        hidden = (
            _hidden(q_len, kv_len, width, length, causal)
            if masked is None
            else masked(q_rows, pick, length) | _past_end(kv_len, length)
        )  # type: ignore[arg-type]  # q_rows is set when masked is given
        if hidden is not None:
            scores.masked_fill_(hidden if hidden.dim() == 2 else hidden[:, None, None], float("-inf"))
        peak = scores.amax(-1, keepdim=True)
        # A row that sees no key has peak -inf; exp(-inf - 0) = 0 keeps it at zero instead of NaN.
        weights = scores.sub_(peak.masked_fill(peak == float("-inf"), 0.0)).exp_()
        norm = weights.sum(-1, keepdim=True)
        o = torch.bmm(weights.view(batch * kv_heads, groups * width, length), values.float())
        o = o.view(batch, kv_heads, groups, width, v_size).div_(norm.clamp_min(torch.finfo(torch.float32).tiny))
        o = o.permute(0, 3, 1, 2, 4).reshape(batch, width, heads, v_size)
        row_lse = (norm.log() + peak).view(batch, heads, width) if want_lse else None
        if uniform and total == tokens:
            return o.view(total, heads, v_size), None if row_lse is None else row_lse.permute(1, 0, 2).reshape(
                heads, total
            )
        if out is None:
            out = query.new_zeros((tokens, heads, v_size), dtype=torch.float32)
            lse = query.new_full((heads, tokens), float("-inf"), dtype=torch.float32) if want_lse else None
        rows = padded_rows(start, q_len, width) if q_rows is None else q_rows
        keep = torch.arange(width) < q_len.unsqueeze(1)
        out[rows[keep]] = o[keep]
        if lse is not None and row_lse is not None:
            lse[:, rows[keep]] = row_lse.permute(1, 0, 2)[:, keep]
    if out is None:
        out = query.new_zeros((tokens, heads, v_size), dtype=torch.float32)
        lse = query.new_full((heads, tokens), float("-inf"), dtype=torch.float32) if want_lse else None
    return out, lse


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
