# SPDX-License-Identifier: Apache-2.0
"""Inference attention of multi-head latent attention (MLA): prefill ring, paged decode, fused graph-mode decode.

In decode the latent vector is key and value at once: the score is q_nope·c + q_rope·k_rope, the output a mixture of c.
Paged caches are [blocks, block_size, 1, D]; only the slots of live positions are gathered.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from . import checks
from .registry import op
from .varlen import Masked, attend, ends_to_starts, host_lengths, padded_rows, page_slots


def check_block_table(name: str, table: Tensor, lengths: Tensor, block_size: int) -> None:
    """int32 [B, blocks] that has a page for every position."""
    checks.dtype(name, "block_table", table, checks.INT32)
    checks.rank(name, "block_table", table, 2)
    if table.shape[0] < lengths.numel():
        raise checks.invalid(
            name, "block_table", f"of {table.shape[0]} rows", f"a row for each of {lengths.numel()} requests"
        )
    longest = int(lengths.max()) if lengths.numel() else 0
    if longest > table.shape[1] * block_size:
        raise checks.invalid(name, "context length", longest, f"at most {table.shape[1]} pages of {block_size}")


def check_lengths(name: str, argument: str, lengths: Tensor) -> Tensor:
    """int32 [B] on the host, none negative → int64."""
    checks.dtype(name, argument, lengths, checks.INT32)
    checks.rank(name, argument, lengths, 1)
    checks.true(
        name, argument, lengths.numel() == 0 or int(lengths.min()) >= 0, "negative for a request", "lengths >= 0"
    )
    return lengths.long()


@op("atb.npu_ring_mla", host=("seqlen",))
def npu_ring_mla(
    q_nope: Tensor,
    q_rope: Tensor,
    k_nope: Tensor,
    k_rope: Tensor,
    value: Tensor,
    mask: Tensor | None,
    seqlen: Tensor,
    head_num: int,
    kv_head_num: int,
    *,
    pre_out: Tensor | None = None,
    prev_lse: Tensor | None = None,
    qk_scale: float = 1.0,
    kernel_type: str | None = None,
    mask_type: str | None = None,
    input_layout: str | None = None,
    calc_type: str | None = None,
    output: Tensor | None = None,
    softmax_lse: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """One ring step of MLA prefill over packed requests.

    Args:
        q_nope, q_rope: [Tq, H, Dn | Dr].   k_nope, k_rope: [Tk, Hkv, Dn | Dr].   value: [Tk, Hkv, Dv].
        mask: the causal template; its values are not read (``mask_type`` decides).
        seqlen: int32 on the host: [B] (as many keys as queries) or [2, B] (queries, keys).
        mask_type: "no_mask" (also None), or "mask_type_triu": query i of a request sees its keys 0 to i, also where
            there are more keys than queries.
        calc_type: "calc_type_first_ring" (also None) writes ``output`` [Tq, H, Dv] and ``softmax_lse`` float32
            [H, Tq]; "calc_type_default" merges with ``pre_out`` and ``prev_lse`` by their log-sum-exp. Requests
            without keys are left alone.
        output, softmax_lse: to be written; new ones when None, NaN where nothing is written.

    Returns:
        (output, softmax_lse).
    """
    name = "npu_ring_mla"
    checks.only(name, (None, "kernel_type_high_precision"), kernel_type=kernel_type)
    checks.only(name, (None, "mask_type_triu", "no_mask"), mask_type=mask_type)
    checks.only(name, (None, "type_bsnd"), input_layout=input_layout)
    checks.only(name, (None, "calc_type_first_ring", "calc_type_default"), calc_type=calc_type)
    first_ring = calc_type != "calc_type_default"
    checks.dtype(name, "q_nope", q_nope, checks.FLOATS)
    if output is None:
        output = q_nope.new_full((*q_nope.shape[:2], value.shape[-1]), float("nan"))
    if softmax_lse is None:
        softmax_lse = torch.full((q_nope.shape[1], q_nope.shape[0]), float("nan"))
    checks.same_dtype(name, q_nope=q_nope, q_rope=q_rope, k_nope=k_nope, k_rope=k_rope, value=value, output=output)
    checks.dtype(name, "softmax_lse", softmax_lse, (torch.float32,))
    if mask_type == "mask_type_triu":
        checks.true(name, "mask", mask is not None, None, "the causal template for mask_type_triu")
    tokens, keys = q_nope.shape[0], k_nope.shape[0]
    checks.shape(name, "q_nope", q_nope, (tokens, head_num, -1))
    checks.shape(name, "q_rope", q_rope, (tokens, head_num, -1))
    checks.shape(name, "k_nope", k_nope, (keys, kv_head_num, q_nope.shape[2]))
    checks.shape(name, "k_rope", k_rope, (keys, kv_head_num, q_rope.shape[2]))
    checks.shape(name, "value", value, (keys, kv_head_num, -1))
    checks.shape(name, "output", output, (tokens, head_num, value.shape[2]))
    checks.shape(name, "softmax_lse", softmax_lse, (head_num, tokens))
    checks.true(name, "head_num", head_num % kv_head_num == 0, head_num, f"a multiple of kv_head_num={kv_head_num}")
    checks.dtype(name, "seqlen", seqlen, checks.INT32)
    checks.rank(name, "seqlen", seqlen, 1, 2)
    both_lengths = seqlen if seqlen.dim() == 2 else seqlen.expand(2, -1)
    checks.shape(name, "seqlen", both_lengths, (2, -1))
    q_lens, kv_lens = check_lengths(name, "seqlen", both_lengths[0]), check_lengths(name, "seqlen", both_lengths[1])
    checks.true(
        name,
        "seqlen",
        int(q_lens.sum()) <= tokens and int(kv_lens.sum()) <= keys,
        f"{int(q_lens.sum())} queries and {int(kv_lens.sum())} keys",
        f"at most the {tokens} and {keys} given",
    )

    triangle = mask_type == "mask_type_triu"
    equal = bool((q_lens == kv_lens).all())
    query = torch.cat((q_nope, q_rope), -1)
    key = torch.cat((k_nope, k_rope), -1)
    packed_value = value.contiguous()
    starts = ends_to_starts(kv_lens)

    def rows(pick: Tensor | None, lengths: Tensor, longest: int) -> Tensor:
        return padded_rows(starts if pick is None else starts[pick], lengths, longest)

    def fetch(index: Tensor) -> tuple[Tensor, Tensor]:
        flat = index.flatten()
        return (
            key.index_select(0, flat).view(*index.shape, *key.shape[1:]),
            packed_value.index_select(0, flat).view(*index.shape, *value.shape[1:]),
        )

    out, lse = attend(
        query,
        q_lens,
        kv_lens,
        rows,
        fetch,
        kv_heads=kv_head_num,
        v_size=value.shape[2],
        scale=qk_scale,
        causal=triangle and equal,
        masked=_sees_up_to_itself(q_lens) if triangle and not equal else None,
        want_lse=True,
    )
    assert lse is not None  # asked for
    if not first_ring:
        if pre_out is None or prev_lse is None:
            raise checks.invalid(
                name, "pre_out, prev_lse", None, "the previous ring step's results for calc_type_default"
            )
        checks.shape(name, "pre_out", pre_out, output.shape)
        checks.shape(name, "prev_lse", prev_lse, softmax_lse.shape)
        before = prev_lse.float()
        merged = torch.logaddexp(before, lse)
        base = merged.masked_fill(merged == float("-inf"), 0.0)
        old, new = (before - base).exp_(), (lse - base).exp_()
        out = pre_out.float() * old.t().unsqueeze(-1) + out * new.t().unsqueeze(-1)
        lse = merged
    touched = int(q_lens.sum())
    if bool((kv_lens == 0).any()) and first_ring:
        live = torch.repeat_interleave(kv_lens > 0, q_lens)
        output[:touched][live] = out[:touched][live].to(output.dtype)
        softmax_lse[:, :touched][:, live] = lse[:, :touched][:, live]
        return output, softmax_lse
    output[:touched].copy_(out[:touched])
    softmax_lse[:, :touched].copy_(lse[:, :touched])
    return output, softmax_lse


def _sees_up_to_itself(q_lens: Tensor) -> Masked:
    """Query i of a request sees its keys 0 to i, however many keys there are."""
    number = torch.cat([torch.arange(length) for length in q_lens.tolist()]) if q_lens.numel() else q_lens

    def masked(q_rows: Tensor, longest: int) -> Tensor:
        return torch.arange(longest) > number[q_rows].unsqueeze(-1)

    return masked


def _latent_cache(name: str, label: str, cache: Tensor) -> Tensor:
    """[blocks, block_size, 1, D] → rows [slots, D] without a copy."""
    checks.rank(name, label, cache, 4)
    checks.true(name, label, cache.shape[2] == 1, f"of {cache.shape[2]} key/value heads", "one (latent attention)")
    checks.true(name, label, cache.is_contiguous(), "not contiguous", "the whole cache tensor")
    return cache.view(-1, cache.shape[3])


def _latent_decode(
    query: Tensor,
    lengths: Tensor,
    block_table: Tensor,
    block_size: int,
    parts: Sequence[Tensor],
    v_size: int,
    scale: float,
    q_lens: Tensor | None = None,
    causal: bool = False,
) -> Tensor:
    """Paged latent attention, float32 [T, H, v_size]: query [T, H, Dk] against ``parts``, the columns of the key."""
    block_table = block_table[: lengths.numel()]

    def rows(pick: Tensor | None, lens: Tensor, longest: int) -> Tensor:
        return page_slots(block_table if pick is None else block_table[pick], lens, longest, block_size)

    def fetch(index: Tensor) -> tuple[Tensor, Tensor]:
        flat = index.flatten()
        if len(parts) == 1:
            joined = parts[0].index_select(0, flat).float()
        else:
            joined = torch.empty(flat.numel(), query.shape[2])
            begin = 0
            for part in parts:
                joined[:, begin : begin + part.shape[1]] = part.index_select(0, flat)
                begin += part.shape[1]
        key = joined.view(*index.shape, 1, query.shape[2])
        return key, key[..., :v_size]

    q_lens = torch.ones_like(lengths) if q_lens is None else q_lens
    return attend(query, q_lens, lengths, rows, fetch, kv_heads=1, v_size=v_size, scale=scale, causal=causal)[0]


@op(host=("context_lens",))
def _npu_paged_attention_mla(
    query: Tensor,
    key_cache: Tensor,
    num_kv_heads: int,
    num_heads: int,
    scale_value: float,
    block_table: Tensor,
    context_lens: Tensor,
    mla_vheadsize: int,
    out: Tensor,
) -> None:
    """Eager MLA decode, one query per request, written to ``out`` [B, H, mla_vheadsize].

    Args:
        query: [B, H, latent + rope].
        key_cache: [blocks, block_size, 1, latent + rope]; the value is its first ``mla_vheadsize`` columns.
        block_table: int32 [B, pages].   context_lens: int32 [B] on the host; 0 = padded request (output 0).
    """
    name = "_npu_paged_attention_mla"
    checks.only(name, 1, num_kv_heads=num_kv_heads)
    checks.dtype(name, "query", query, checks.FLOATS)
    checks.same_dtype(name, query=query, key_cache=key_cache, out=out)
    cache = _latent_cache(name, "key_cache", key_cache)
    lengths = check_lengths(name, "context_lens", context_lens)
    checks.shape(name, "query", query, (lengths.numel(), num_heads, cache.shape[1]))
    checks.shape(name, "out", out, (lengths.numel(), num_heads, mla_vheadsize))
    check_block_table(name, block_table, lengths, key_cache.shape[1])
    out.copy_(_latent_decode(query, lengths, block_table, key_cache.shape[1], [cache], mla_vheadsize, scale_value))


@op("atb.npu_multi_head_latent_attention", host=("context_lens",))
def npu_multi_head_latent_attention(
    q_nope: Tensor,
    q_rope: Tensor,
    ctkv: Tensor,
    k_rope: Tensor,
    block_tables: Tensor,
    context_lens: Tensor | Sequence[int],
    q_headnum: int,
    qk_scale: float,
    kv_headnum: int,
) -> Tensor:
    """Eager MLA decode on separate caches (vLLM-Ascend with VLLM_ASCEND_MLA_PA=1). Returns [B, H, latent].

    q_nope [B, H, latent], q_rope [B, H, rope]; ctkv, k_rope [blocks, block_size, 1, latent | rope]; context_lens int32
    on the host or a list.
    """
    name = "npu_multi_head_latent_attention"
    checks.only(name, 1, kv_headnum=kv_headnum)
    checks.dtype(name, "q_nope", q_nope, checks.FLOATS)
    checks.same_dtype(name, q_nope=q_nope, q_rope=q_rope, ctkv=ctkv, k_rope=k_rope)
    parts = [_latent_cache(name, "ctkv", ctkv), _latent_cache(name, "k_rope", k_rope)]
    if not isinstance(context_lens, Tensor):
        context_lens = torch.tensor(context_lens, dtype=torch.int32)
    lengths = check_lengths(name, "context_lens", context_lens)
    checks.shape(name, "q_nope", q_nope, (lengths.numel(), q_headnum, ctkv.shape[3]))
    checks.shape(name, "q_rope", q_rope, (lengths.numel(), q_headnum, k_rope.shape[3]))
    check_block_table(name, block_tables, lengths, ctkv.shape[1])
    query = torch.cat((q_nope, q_rope), -1)
    out = _latent_decode(query, lengths, block_tables, ctkv.shape[1], parts, ctkv.shape[3], qk_scale)
    return out.to(q_nope.dtype)


def _row_order(name: str, cache: Tensor) -> Tensor:
    """An NZ cache [blocks, 1, D / 16, block_size, 16] as [blocks, 1, block_size, D]."""
    checks.shape(name, "key", cache, (-1, 1, -1, -1, 16))
    blocks, _, groups, size, columns = cache.shape
    return cache.transpose(2, 3).reshape(blocks, 1, size, groups * columns)


@op()
def npu_fused_infer_attention_score(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    query_rope: Tensor | None = None,
    key_rope: Tensor | None = None,
    num_heads: int = 1,
    num_key_value_heads: int = 0,
    input_layout: str = "BSH",
    atten_mask: Tensor | None = None,
    sparse_mode: int = 0,
    scale: float = 1.0,
    antiquant_mode: int = 0,
    antiquant_scale: Tensor | None = None,
    block_table: Tensor | None = None,
    block_size: int = 0,
    actual_seq_lengths: Sequence[int] | None = None,
    actual_seq_lengths_kv: Sequence[int] | None = None,
    softmax_lse_flag: bool = False,
    inner_precise: int = 0,
) -> tuple[Tensor, Tensor]:
    """Graph-mode MLA decode (the form with query_rope and key_rope on a paged cache).

    Args:
        query, query_rope: BNSD [B, H, S, D], BSND [B, S, H, D] or TND [T, H, D].
        sparse_mode: 0: every query sees all keys; 3, with ``atten_mask``: causal, aligned at the end of the keys.
        key, key_rope: [blocks, 1, block_size, latent | rope], or of an NZ cache [blocks, 1, latent/16 | rope/16,
            block_size, 16].   value: the same tensor as key.
        block_table: int32 [B, pages].
        actual_seq_lengths: TND only, cumulative query counts.   actual_seq_lengths_kv: key counts; 0 = padded request.
        inner_precise: 0 to 3; all compute alike here.

    Returns:
        (output like query, one 0 in the place of the log-sum-exp).
    """
    name = "npu_fused_infer_attention_score"
    if query_rope is None or key_rope is None or block_table is None or actual_seq_lengths_kv is None:
        missing = [
            k
            for k, v in (
                ("query_rope", query_rope),
                ("key_rope", key_rope),
                ("block_table", block_table),
                ("actual_seq_lengths_kv", actual_seq_lengths_kv),
            )
            if v is None
        ]
        raise checks.unsupported(name, missing[0], None, "the paged MLA form with query_rope, key_rope and block_table")
    checks.only(name, ("BNSD", "BSND", "TND"), input_layout=input_layout)
    checks.only(name, (0, 3), sparse_mode=sparse_mode)
    causal = sparse_mode == 3
    if causal:
        checks.true(name, "atten_mask", atten_mask is not None, None, "the 2048x2048 causal mask for sparse_mode 3")
    else:
        checks.absent(name, atten_mask=atten_mask)
    checks.only(name, 0, antiquant_mode=antiquant_mode)
    checks.only(name, (0, 1), num_key_value_heads=num_key_value_heads)
    checks.only(name, False, softmax_lse_flag=softmax_lse_flag)
    checks.only(name, (0, 1, 2, 3), inner_precise=inner_precise)
    checks.absent(name, antiquant_scale=antiquant_scale)
    checks.dtype(name, "query", query, checks.FLOATS)
    checks.same_dtype(name, query=query, key=key, value=value, query_rope=query_rope, key_rope=key_rope)
    checks.shape(name, "value", value, key.shape)
    if key.dim() == 5:
        key, value, key_rope = (_row_order(name, tensor) for tensor in (key, value, key_rope))
    blocks, _, size, latent = key.shape
    checks.shape(name, "key", key, (blocks, 1, block_size, latent))
    checks.shape(name, "key_rope", key_rope, (blocks, 1, block_size, -1))
    for label, length_list in (
        ("actual_seq_lengths", actual_seq_lengths),
        ("actual_seq_lengths_kv", actual_seq_lengths_kv),
    ):
        if isinstance(length_list, Tensor):
            raise checks.invalid(name, label, "a tensor", "a list of ints")
    lengths = host_lengths(list(actual_seq_lengths_kv))
    check_block_table(name, block_table, lengths, size)
    parts = [key.reshape(-1, latent), key_rope.reshape(-1, key_rope.shape[3])]
    if input_layout != "TND":
        if input_layout == "BSND":
            query, query_rope = query.transpose(1, 2), query_rope.transpose(1, 2)
        batch, heads, steps, _ = query.shape
        checks.shape(name, "query", query, (lengths.numel(), num_heads, -1, latent))
        full_query = torch.cat((query, query_rope), -1).transpose(1, 2).reshape(batch * steps, heads, -1)
        out = _latent_decode(
            full_query,
            lengths,
            block_table,
            size,
            parts,
            latent,
            scale,
            q_lens=torch.full((batch,), steps, dtype=torch.int64),
            causal=causal,
        )
        out = out.view(batch, steps, heads, latent)
        out = out if input_layout == "BSND" else out.transpose(1, 2)
    else:
        checks.shape(name, "query", query, (-1, num_heads, latent))
        if actual_seq_lengths is None or len(actual_seq_lengths) != lengths.numel():
            raise checks.invalid(
                name, "actual_seq_lengths", actual_seq_lengths, f"{lengths.numel()} cumulative query counts (TND)"
            )
        ends = host_lengths(list(actual_seq_lengths))
        q_lens = torch.diff(ends, prepend=ends.new_zeros(1))
        checks.true(
            name,
            "actual_seq_lengths",
            int(q_lens.min()) >= 0 and int(ends[-1]) <= query.shape[0],
            list(actual_seq_lengths),
            f"non-decreasing counts up to {query.shape[0]}",
        )
        out = _latent_decode(
            torch.cat((query, query_rope), -1),
            lengths,
            block_table,
            size,
            parts,
            latent,
            scale,
            q_lens=q_lens,
            causal=causal,
        )
    return out.to(query.dtype).contiguous(), torch.zeros(1)
