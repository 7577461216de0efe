# SPDX-License-Identifier: Apache-2.0
"""Moving tokens to the experts' order and back, on one device.

Two families: ``init_routing`` / ``finalize_routing`` number expanded rows column by column (k · T + i), ``permute`` /
``unpermute`` row by row (i · k + j).
"""

import torch
from torch import Tensor

from . import checks
from .registry import op


@op()
def npu_moe_init_routing(
    x: Tensor, row_idx: Tensor, expert_idx: Tensor, active_num: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Sort the T·k expanded rows by expert (stable).

    Args:
        x: [T, H].   row_idx, expert_idx: int32 [T, k]; row_idx[i, j] = j · T + i.
        active_num: tokens whose rows are kept.

    Returns:
        (rows of x in expert order [min(T, active_num) · k, H], for each row number its place in that order int32 [T·k],
        the sorted experts int32 [T·k]).
    """
    name = "npu_moe_init_routing"
    checks.dtype(name, "x", x, checks.FLOATS)
    checks.rank(name, "x", x, 2)
    for label, tensor in (("row_idx", row_idx), ("expert_idx", expert_idx)):
        checks.dtype(name, label, tensor, checks.INT32)
        checks.shape(name, label, tensor, (x.shape[0], -1))
    checks.shape(name, "row_idx", row_idx, expert_idx.shape)
    tokens, k = expert_idx.shape
    experts, order = torch.sort(expert_idx.reshape(-1), stable=True)
    source = row_idx.reshape(-1).long()[order]
    place = torch.empty_like(source, dtype=torch.int32)
    place[source] = torch.arange(tokens * k, dtype=torch.int32)
    kept = min(active_num, tokens) * k
    return x.index_select(0, source[:kept] % max(tokens, 1)), place, experts


@op()
def npu_moe_compute_expert_tokens(sorted_experts: Tensor, num_expert: int) -> Tensor:
    """CUMULATIVE number of rows up to each expert: int32 [T·k] (sorted) → int32 [num_expert]."""
    name = "npu_moe_compute_expert_tokens"
    checks.dtype(name, "sorted_experts", sorted_experts, checks.INT32)
    checks.rank(name, "sorted_experts", sorted_experts, 1)
    return torch.searchsorted(sorted_experts, torch.arange(num_expert, dtype=torch.int32), right=True).int()


@op()
def npu_moe_finalize_routing(
    expanded_permuted_rows: Tensor,
    skip1: Tensor | None,
    skip2: Tensor | None,
    bias: Tensor | None,
    scales: Tensor | None,
    expanded_src_to_dst_row: Tensor,
    export_for_source_row: Tensor | None,
    drop_pad_mode: int = 0,
) -> Tensor:
    """Bring rows back from expert order and sum each token's k rows, weighted.

    Args:
        expanded_permuted_rows: [T·k, H].   skip1, skip2: [T, H], added.   bias: [E, H], added per row before weighting.
        scales: [T, k], 1 when None.   expanded_src_to_dst_row: int32 [T·k], place of row number j · T + i.
        export_for_source_row: int32 [T, k], the expert of each row (which bias).

    Returns:
        [T, H] like the rows; float32 inside.
    """
    name = "npu_moe_finalize_routing"
    checks.only(name, 0, drop_pad_mode=drop_pad_mode)
    rows = expanded_permuted_rows
    checks.dtype(name, "expanded_permuted_rows", rows, checks.FLOATS)
    checks.rank(name, "expanded_permuted_rows", rows, 2)
    checks.dtype(name, "expanded_src_to_dst_row", expanded_src_to_dst_row, checks.INT32)
    if export_for_source_row is not None:
        checks.dtype(name, "export_for_source_row", export_for_source_row, checks.INT32)
    total = expanded_src_to_dst_row.numel()
    if scales is not None:
        checks.same_dtype(name, expanded_permuted_rows=rows, scales=scales)
        checks.rank(name, "scales", scales, 2)
        tokens, k = scales.shape
    elif export_for_source_row is not None:
        tokens, k = export_for_source_row.shape
    else:
        tokens, k = total, 1
    checks.true(name, "expanded_src_to_dst_row", total == tokens * k, f"{total} rows", f"{tokens} x {k}")
    picked = rows.index_select(0, expanded_src_to_dst_row).view(k, tokens, rows.shape[1]).float()
    if bias is not None:
        if export_for_source_row is None:
            raise checks.invalid(name, "export_for_source_row", None, "the experts of the rows when bias is given")
        picked = picked + bias.float()[export_for_source_row.t().long()]
    out = picked.sum(0) if scales is None else _weighted_sum(picked, scales.float())
    for label, skip in (("skip1", skip1), ("skip2", skip2)):
        if skip is not None:
            checks.shape(name, label, skip, (tokens, rows.shape[1]))
            out = out + skip.float()
    return out.to(rows.dtype)


def _weighted_sum(picked: Tensor, scales: Tensor) -> Tensor:
    out = picked[0] * scales[:, 0:1]
    for j in range(1, picked.shape[0]):
        out.addcmul_(picked[j], scales[:, j : j + 1])
    return out


@op(trained=True)
def npu_moe_token_permute(
    tokens: Tensor, indices: Tensor, num_out_tokens: int | None = None, padded_mode: bool = False
) -> tuple[Tensor, Tensor]:
    """Expanded rows of ``tokens`` in expert order (stable).

    Args:
        tokens: [T, H].   indices: int32 or int64 [T] or [T, k], the experts.
        num_out_tokens: rows to keep; 0 or None = all, a negative number = so many fewer.

    Returns:
        ([rows, H], int32 [T·k]: for row i · k + j its place in expert order, uncut).
    """
    name = "npu_moe_token_permute"
    checks.only(name, False, padded_mode=padded_mode)
    checks.dtype(name, "tokens", tokens, checks.FLOATS)
    checks.rank(name, "tokens", tokens, 2)
    checks.dtype(name, "indices", indices, checks.INDEX)
    checks.rank(name, "indices", indices, 1, 2)
    checks.true(
        name,
        "indices",
        indices.shape[0] == tokens.shape[0],
        f"for {indices.shape[0]} tokens",
        f"{tokens.shape[0]} tokens",
    )
    k = 1 if indices.dim() == 1 else indices.shape[1]
    order = torch.sort(indices.reshape(-1), stable=True).indices
    place = torch.empty_like(order, dtype=torch.int32)
    place[order] = torch.arange(order.numel(), dtype=torch.int32)
    wanted = num_out_tokens or 0
    rows = min(wanted, order.numel()) if wanted > 0 else order.numel() + wanted
    return tokens.index_select(0, order[:rows] // k), place


@op(trained=True)
def npu_moe_token_unpermute(
    permuted_tokens: Tensor,
    sorted_indices: Tensor,
    probs: Tensor | None = None,
    padded_mode: bool = False,
    restore_shape: torch.Size | None = None,
) -> Tensor:
    """Inverse of :func:`npu_moe_token_permute`: weighted sum of each token's k rows, float32 inside.

    Args:
        permuted_tokens: [rows, H].   sorted_indices: int32 [T·k].   probs: [T, k]; None: k = 1, weight 1.
    """
    name = "npu_moe_token_unpermute"
    checks.only(name, False, padded_mode=padded_mode)
    checks.dtype(name, "permuted_tokens", permuted_tokens, checks.FLOATS)
    checks.rank(name, "permuted_tokens", permuted_tokens, 2)
    checks.dtype(name, "sorted_indices", sorted_indices, checks.INT32)
    checks.rank(name, "sorted_indices", sorted_indices, 1)
    k = 1
    if probs is not None:
        checks.rank(name, "probs", probs, 2)
        checks.dtype(name, "probs", probs, checks.FLOATS)
        k = probs.shape[1]
        checks.true(
            name,
            "probs",
            probs.numel() == sorted_indices.numel(),
            f"of shape {tuple(probs.shape)}",
            f"{sorted_indices.numel()} elements",
        )
    rows, index = permuted_tokens.shape[0], sorted_indices.long()
    if rows < index.numel():  # rows cut off by num_out_tokens count as zero
        permuted_tokens = torch.cat((permuted_tokens, permuted_tokens.new_zeros(1, permuted_tokens.shape[1])))
        index = index.clamp_max(rows)
    picked = permuted_tokens.index_select(0, index).view(index.numel() // k, k, permuted_tokens.shape[1])
    if probs is None:
        return picked.squeeze(1)
    return (picked.float() * probs.float().unsqueeze(-1)).sum(1).to(permuted_tokens.dtype)


def _map_rows(name: str, routing_map: Tensor) -> Tensor:
    """Token numbers in expert order: all tokens of expert 0, then of expert 1, ..."""
    checks.dtype(name, "routing_map", routing_map, (torch.bool, torch.int8))
    checks.rank(name, "routing_map", routing_map, 2)
    return routing_map.t().nonzero()[:, 1]


def _by_expert(probs: Tensor, routing_map: Tensor) -> Tensor:
    return probs.t().masked_select(routing_map.t().bool())


def _spread(values: Tensor, routing_map: Tensor) -> Tensor:
    """Inverse of :func:`_by_expert`: [rows] → [T, E], zero elsewhere."""
    return torch.zeros(routing_map.t().shape, dtype=values.dtype).masked_scatter(routing_map.t().bool(), values).t()


@op(trained=True)
def npu_moe_token_permute_with_routing_map(
    tokens: Tensor,
    routing_map: Tensor,
    *,
    probs: Tensor | None = None,
    num_out_tokens: int | None = None,
    drop_and_pad: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Expert order from a map: tokens [T, H], routing_map bool or int8 [T, E], probs [T, E].

    Returns:
        (rows [N, H], probs of the rows [N] or empty, token numbers of the rows int32 [N]) with N = routing_map.sum().
    """
    name = "npu_moe_token_permute_with_routing_map"
    checks.only(name, False, drop_and_pad=drop_and_pad)
    checks.dtype(name, "tokens", tokens, checks.FLOATS)
    checks.shape(name, "routing_map", routing_map, (tokens.shape[0], -1))
    rows = _map_rows(name, routing_map)
    checks.only(name, (None, 0, rows.numel()), num_out_tokens=num_out_tokens)
    moved = tokens.new_empty(0) if probs is None else _by_expert(probs, routing_map)
    return tokens.index_select(0, rows), moved, rows.int()


@op()
def npu_moe_token_permute_with_routing_map_grad(
    permuted_token_out_grad: Tensor,
    probs_grad: Tensor | None,
    sorted_indices: Tensor,
    routing_map: Tensor,
    experts_num: int,
    tokens_num: int,
    drop_and_pad: bool = False,
) -> tuple[Tensor, Tensor]:
    """Gradients of the above for tokens [T, H] and probs [T, E] (empty when ``probs_grad`` is None or empty)."""
    name = "npu_moe_token_permute_with_routing_map_grad"
    checks.only(name, False, drop_and_pad=drop_and_pad)
    checks.shape(name, "routing_map", routing_map, (tokens_num, experts_num))
    grad = permuted_token_out_grad
    tokens = torch.zeros(tokens_num, grad.shape[1]).index_add_(0, sorted_indices.long(), grad.float()).to(grad.dtype)
    has_probs = probs_grad is not None and probs_grad.numel() > 0
    return tokens, _spread(probs_grad, routing_map) if has_probs else grad.new_empty(0)


@op()
def _npu_moe_token_unpermute_with_routing_map(
    permuted_tokens: Tensor,
    sorted_indices: Tensor,
    restore_shape: torch.Size,
    *,
    probs: Tensor | None = None,
    routing_map: Tensor | None = None,
    drop_and_pad: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Sum rows in expert order back into tokens, weighted by probs [T, E] when given.

    Returns:
        (tokens of ``restore_shape`` [T, H], sorted_indices twice (out_index, permuted_token_id), probs of the rows or
        empty).
    """
    name = "_npu_moe_token_unpermute_with_routing_map"
    checks.only(name, False, drop_and_pad=drop_and_pad)
    checks.dtype(name, "sorted_indices", sorted_indices, checks.INT32)
    rows, weights = permuted_tokens.float(), permuted_tokens.new_empty(0)
    if probs is not None:
        if routing_map is None:
            raise checks.invalid(name, "routing_map", None, "the map when probs are given")
        weights = _by_expert(probs, routing_map)
        rows = rows * weights.float().unsqueeze(1)
    out = torch.zeros(tuple(restore_shape)).index_add_(0, sorted_indices.long(), rows)
    return out.to(permuted_tokens.dtype), sorted_indices, sorted_indices, weights


@op()
def npu_moe_token_unpermute_with_routing_map_grad(
    unpermuted_tokens_grad: Tensor,
    out_index: Tensor,
    permuted_token_id: Tensor,
    *,
    routing_map: Tensor | None = None,
    permuted_tokens: Tensor | None = None,
    probs: Tensor | None = None,
    drop_and_pad: bool = False,
    restore_shape: torch.Size | None = None,
) -> tuple[Tensor, Tensor]:
    """Gradients of the above for permuted_tokens [N, H] and probs [T, E] (empty without probs)."""
    name = "npu_moe_token_unpermute_with_routing_map_grad"
    checks.only(name, False, drop_and_pad=drop_and_pad)
    grad = unpermuted_tokens_grad.index_select(0, permuted_token_id.long())
    if probs is None:
        return grad, grad.new_empty(0)
    if routing_map is None or permuted_tokens is None:
        raise checks.invalid(name, "routing_map, permuted_tokens", None, "both when probs are given")
    wide = grad.float()
    rows = wide * _by_expert(probs, routing_map).float().unsqueeze(1)
    weights = (wide * permuted_tokens.float()).sum(1).to(probs.dtype)
    return rows.to(grad.dtype), _spread(weights, routing_map)
