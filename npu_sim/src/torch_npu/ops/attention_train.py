# SPDX-License-Identifier: Apache-2.0
"""Training flash attention (npu_fusion_attention): padded layouts and packed requests (TND), differentiable."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from . import checks
from .registry import op
from .varlen import buckets, ends_to_starts, padded_rows

_NAME = "npu_fusion_attention"
_NO_LIMIT = 2147483647
_LAYOUTS = ("SBH", "BSH", "BSND", "BNSD", "TND")


class Band(NamedTuple):
    """Which keys a query sees: key - query in [-before, after], counted from the first or the last common position."""

    before: int
    after: int
    from_end: bool

    def hidden(self, q_len: Tensor, kv_len: Tensor, width: int, length: int) -> Tensor:
        """bool [b, width, length], True = hidden; also hides keys past a request's end."""
        ahead = torch.arange(length) - torch.arange(width).unsqueeze(1)
        shift = (kv_len - q_len if self.from_end else torch.zeros_like(q_len))[:, None, None]
        outside = (ahead > shift + self.after) | (ahead < shift - self.before)
        return outside | (torch.arange(length) >= kv_len[:, None, None])


def _band(sparse_mode: int, before: int, after: int) -> Band | None:
    return {
        0: Band(before, after, False),
        1: None,
        2: Band(_NO_LIMIT, 0, False),
        3: Band(_NO_LIMIT, 0, True),
        4: Band(before, after, True),
    }[sparse_mode]


def _softmax_mix(
    query: Tensor, key: Tensor, value: Tensor, hidden: Tensor | None, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """[b, N, Sq, D], [b, Nkv, Sk, D], [b, Nkv, Sk, Dv] → float32 (out, row maximum, row sum of exponentials)."""
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    scores = torch.matmul(query.float(), key.float().transpose(-1, -2)) * scale
    if hidden is not None:
        scores = scores.masked_fill(hidden, torch.finfo(torch.float32).min)
    weights = torch.softmax(scores, -1)
    if hidden is not None:
        blind = hidden.all(-1, keepdim=True)
        if bool(blind.any()):  # a query without keys gets zero
            weights = weights.masked_fill(blind, 0.0)
    with torch.no_grad():
        peak = scores.amax(-1)
        total = (scores - peak.unsqueeze(-1)).exp().sum(-1)
    return torch.matmul(weights, value.float()), peak, total


def _packed(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    q_ends: Sequence[int],
    kv_ends: Sequence[int],
    band: Band | None,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """TND: padded per bucket of similar lengths. Returns out [T, N, Dv], peak and total [T, N]."""
    q_lens, kv_lens = (
        torch.diff(torch.tensor(list(e), dtype=torch.int64), prepend=torch.zeros(1, dtype=torch.int64))
        for e in (q_ends, kv_ends)
    )
    q_starts, kv_starts = ends_to_starts(q_lens), ends_to_starts(kv_lens)
    rows, parts = [], []
    for bucket in buckets(q_lens, kv_lens, query.shape[1]):
        pick = slice(None) if bucket.index is None else bucket.index
        q_len, kv_len = q_lens[pick], kv_lens[pick]
        q_rows = padded_rows(q_starts[pick], q_len, bucket.queries)
        kv_rows = padded_rows(kv_starts[pick], kv_len, bucket.keys)
        q, k, v = (
            t.index_select(0, r.flatten()).unflatten(0, r.shape).transpose(1, 2)
            for t, r in ((query, q_rows), (key, kv_rows), (value, kv_rows))
        )
        everything = Band(_NO_LIMIT, _NO_LIMIT, False)
        hidden = (band or everything).hidden(q_len, kv_len, bucket.queries, bucket.keys).unsqueeze(1)
        keep = torch.arange(bucket.queries) < q_len.unsqueeze(1)
        rows.append(q_rows[keep])
        parts.append([t.transpose(1, 2)[keep] for t in _softmax_mix(q, k, v, hidden, scale)])
    tokens, heads = query.shape[:2]
    out = query.new_zeros((tokens, heads, value.shape[2]), dtype=torch.float32)
    peak = query.new_full((tokens, heads), float("-inf"), dtype=torch.float32)
    total = query.new_zeros((tokens, heads), dtype=torch.float32)
    if not rows:
        return out, peak, total
    index = torch.cat(rows)
    return (
        out.index_copy(0, index, torch.cat([p[0] for p in parts])),
        peak.index_copy(0, index, torch.cat([p[1] for p in parts])),
        total.index_copy(0, index, torch.cat([p[2] for p in parts])),
    )


def _split_heads(layout: str, tensor: Tensor, heads: int) -> Tensor:
    """Any padded layout → [B, N, S, D]."""
    if layout == "SBH":
        return tensor.unflatten(2, (heads, -1)).permute(1, 2, 0, 3)
    if layout == "BSH":
        return tensor.unflatten(2, (heads, -1)).transpose(1, 2)
    return tensor.transpose(1, 2) if layout == "BSND" else tensor


def _join_heads(layout: str, tensor: Tensor) -> Tensor:
    if layout == "SBH":
        return tensor.permute(2, 0, 1, 3).flatten(2)
    if layout == "BSH":
        return tensor.transpose(1, 2).flatten(2)
    return tensor.transpose(1, 2) if layout == "BSND" else tensor


def _check_mask(atten_mask: Tensor | None, sparse_mode: int, batch: int, heads: int, q_len: int, kv_len: int) -> None:
    if sparse_mode in (1, 2, 3, 4) and atten_mask is None:
        raise checks.invalid(_NAME, "atten_mask", None, f"a mask for sparse_mode {sparse_mode}")
    if atten_mask is None:
        return
    checks.dtype(_NAME, "atten_mask", atten_mask, (torch.bool, torch.uint8))
    if sparse_mode in (2, 3, 4):  # a template, which is not read
        return
    shapes = [(q_len, kv_len), (1, 1, q_len, kv_len), (batch, 1, q_len, kv_len), (batch, heads, q_len, kv_len)]
    if tuple(atten_mask.shape) not in shapes:
        raise checks.invalid(_NAME, "atten_mask", f"of shape {tuple(atten_mask.shape)}", " or ".join(map(str, shapes)))


def _check_ends(label: str, ends: Sequence[int] | None, tokens: int) -> Sequence[int]:
    if ends is None or isinstance(ends, Tensor):
        raise checks.invalid(_NAME, label, type(ends).__name__, "a list of cumulative lengths for layout TND")
    if not ends or min(ends) < 0 or list(ends) != sorted(ends) or ends[-1] != tokens:
        raise checks.invalid(_NAME, label, list(ends), f"cumulative lengths that end at {tokens}")
    return ends


@op(trained=True)
def npu_fusion_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    head_num: int,
    input_layout: str,
    pse: Tensor | None = None,
    padding_mask: Tensor | None = None,
    atten_mask: Tensor | None = None,
    scale: float = 1.0,
    keep_prob: float = 1.0,
    pre_tockens: int = _NO_LIMIT,
    next_tockens: int = _NO_LIMIT,
    inner_precise: int = 0,
    prefix: Sequence[int] | None = None,
    actual_seq_qlen: Sequence[int] | None = None,
    actual_seq_kvlen: Sequence[int] | None = None,
    sparse_mode: int = 0,
    gen_mask_parallel: bool = True,
    sync: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor, int, int, int]:
    """softmax(scale · q kᵀ + mask) v with flash-attention memory.

    Args:
        query, key, value: SBH [S, B, N·D], BSH, BSND, BNSD, or TND [T, N, D] (packed, with ``actual_seq_*len``). Key
            and value may have fewer heads (a divisor), value a smaller head size.
        atten_mask: bool or uint8, True = masked. ``sparse_mode`` 0: [Sq, Sk], [B|1, 1, Sq, Sk] or [B, N, Sq, Sk],
            within the band pre/next_tockens; 1: the same without band; 2 / 3: causal from the first / last position
            with the 2048x2048 template; 4: band from the last position with the template.
        actual_seq_qlen, actual_seq_kvlen: TND only, cumulative lengths (a leading 0 is an empty request).
        keep_prob: only 1 (dropout is not simulated).

    Returns:
        (out like query with value's head size, softmax_max and softmax_sum float32 [B, N, Sq, 8] or [T, N, 8], an empty
        tensor, and three zeros for the dropout state).
    """
    checks.only(_NAME, _LAYOUTS, input_layout=input_layout)
    checks.absent(_NAME, pse=pse, padding_mask=padding_mask, prefix=prefix)
    checks.only(_NAME, 1.0, keep_prob=keep_prob)
    checks.only(_NAME, (0, 1, 2, 3, 4), sparse_mode=sparse_mode)
    checks.only(_NAME, (0, 1), inner_precise=inner_precise)
    checks.dtype(_NAME, "query", query, checks.FLOATS)
    checks.same_dtype(_NAME, query=query, key=key, value=value)
    for label, tensor in (("query", query), ("key", key), ("value", value)):
        checks.rank(_NAME, label, tensor, 3 if input_layout in ("SBH", "BSH", "TND") else 4)
    empty = query.new_empty(0, dtype=torch.float32)
    if input_layout == "TND":
        checks.true(_NAME, "head_num", query.shape[1] == head_num, head_num, f"{query.shape[1]}, the heads of query")
        _check_sizes(head_num, key.shape[1], query.shape[2], key.shape[2], value.shape[1])
        q_ends = _check_ends("actual_seq_qlen", actual_seq_qlen, query.shape[0])
        kv_ends = _check_ends("actual_seq_kvlen", actual_seq_kvlen, key.shape[0])
        checks.true(
            _NAME, "actual_seq_kvlen", len(q_ends) == len(kv_ends), f"{len(kv_ends)} requests", f"{len(q_ends)}"
        )
        if sparse_mode in (0, 1) and atten_mask is not None:
            raise checks.unsupported(
                _NAME, "atten_mask", atten_mask, "sparse_mode 2, 3 or 4 with the template for layout TND"
            )
        _check_mask(atten_mask, sparse_mode, 1, head_num, 0, 0)
        band = None if sparse_mode == 0 else _band(sparse_mode, pre_tockens, next_tockens)
        out, peak, total = _packed(query, key, value, q_ends, kv_ends, band, scale)
        return out.to(query.dtype), *_eight(peak, total), empty, 0, 0, 0

    checks.absent(_NAME, actual_seq_qlen=actual_seq_qlen, actual_seq_kvlen=actual_seq_kvlen)
    if input_layout in ("SBH", "BSH"):
        size = query.shape[2] // head_num
        checks.true(
            _NAME,
            "head_num",
            query.shape[2] == size * head_num and key.shape[2] % max(size, 1) == 0,
            head_num,
            f"a divisor of the hidden size {query.shape[2]} whose head size divides {key.shape[2]}",
        )
        kv_heads = key.shape[2] // size
    else:
        axis = 2 if input_layout == "BSND" else 1
        checks.true(
            _NAME, "head_num", query.shape[axis] == head_num, head_num, f"{query.shape[axis]}, the heads of query"
        )
        kv_heads = key.shape[axis]
    q = _split_heads(input_layout, query, head_num)
    k, v = (_split_heads(input_layout, t, kv_heads) for t in (key, value))
    _check_sizes(head_num, kv_heads, q.shape[3], k.shape[3], v.shape[1])
    batch, _, q_len, _ = q.shape
    kv_len = k.shape[2]
    if k.shape[0] != batch or v.shape[:3] != k.shape[:3]:
        raise checks.invalid(
            _NAME,
            "key, value",
            f"{tuple(key.shape)}, {tuple(value.shape)}",
            f"the batch and length of query {tuple(query.shape)}",
        )
    _check_mask(atten_mask, sparse_mode, batch, head_num, q_len, kv_len)
    hidden: Tensor | None = None
    if atten_mask is not None:
        band = _band(sparse_mode, pre_tockens, next_tockens)
        if band is not None:
            hidden = band.hidden(torch.tensor([q_len]), torch.tensor([kv_len]), q_len, kv_len)[0]
        if sparse_mode in (0, 1):
            explicit = atten_mask.bool()
            hidden = explicit if hidden is None else explicit | hidden
    out, peak, total = _softmax_mix(q, k, v, hidden, scale)
    return _join_heads(input_layout, out).to(query.dtype), *_eight(peak, total), empty, 0, 0, 0


def _check_sizes(heads: int, kv_heads: int, q_size: int, k_size: int, v_heads: int) -> None:
    checks.true(_NAME, "key", heads % kv_heads == 0, f"of {kv_heads} heads", f"a divisor of head_num={heads}")
    checks.true(_NAME, "value", v_heads == kv_heads, f"of {v_heads} heads", f"{kv_heads} as key")
    checks.true(_NAME, "key", q_size == k_size, f"of head size {k_size}", f"{q_size} as query")


def _eight(*rows: Tensor) -> tuple[Tensor, ...]:
    """The kernel stores each row statistic eight times."""
    return tuple(r.unsqueeze(-1).expand(*r.shape, 8).contiguous() for r in rows)
