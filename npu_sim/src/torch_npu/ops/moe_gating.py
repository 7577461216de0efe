# SPDX-License-Identifier: Apache-2.0
"""Choosing experts: scores from router logits, top-k with lowest index first among equals."""

import torch
from torch import Tensor

from . import checks
from .registry import op


def _top(scores: Tensor, k: int) -> Tensor:
    """Indices of the k largest per row, largest first; among equal scores the lower index first."""
    if k < scores.shape[1]:
        values, indices = scores.topk(k + 1, dim=-1)
        if not bool((values[:, 1:] == values[:, :-1]).any()):
            return indices[:, :k]
    return torch.sort(scores, dim=-1, descending=True, stable=True).indices[:, :k]


@op()
def npu_moe_gating_top_k_softmax(
    x: Tensor, finished: Tensor | None = None, k: int = 1
) -> tuple[Tensor, Tensor, Tensor]:
    """softmax, then top-k, without renormalisation.

    Args:
        x: router logits [T, E].

    Returns:
        (weights [T, k] like x, experts int32 [T, k], row numbers int32 [T, k] counted column by column: j · T + i).
    """
    name = "npu_moe_gating_top_k_softmax"
    checks.absent(name, finished=finished)
    checks.dtype(name, "x", x, checks.FLOATS)
    checks.rank(name, "x", x, 2)
    checks.true(name, "k", 0 < k <= x.shape[1], k, f"1..{x.shape[1]} (the number of experts)")
    weights = torch.softmax(x.float(), -1)
    experts = _top(weights, k)
    rows = torch.arange(x.shape[0] * k, dtype=torch.int32).view(k, -1).t()
    return weights.gather(1, experts).to(x.dtype), experts.int(), rows


@op()
def npu_moe_gating_top_k(
    x: Tensor,
    k: int,
    *,
    bias: Tensor | None = None,
    k_group: int = 1,
    group_count: int = 1,
    group_select_mode: int = 0,
    renorm: int = 0,
    norm_type: int = 0,
    out_flag: bool = False,
    routed_scaling_factor: float = 1.0,
    eps: float = 1e-20,
) -> tuple[Tensor, Tensor, Tensor]:
    """DeepSeek-V3's gate: biased scores choose groups and experts, unbiased scores give the weights.

    Args:
        x: router logits [T, E].   bias: [E] like x, added for the choice only.
        k_group of group_count groups stay; a group's score is its maximum (``group_select_mode`` 0) or the sum of its
            two best (1).
        norm_type: 0 softmax, 1 sigmoid. With sigmoid the k weights are divided by (their sum + eps).

    Returns:
        (weights [T, k] like x, times ``routed_scaling_factor``; experts int32 [T, k]; float32 scores [T, E] if
        ``out_flag``, else an empty tensor).
    """
    name = "npu_moe_gating_top_k"
    checks.only(name, (0, 1), group_select_mode=group_select_mode)
    checks.only(name, (0, 1), norm_type=norm_type)
    checks.only(name, 0, renorm=renorm)
    checks.dtype(name, "x", x, checks.FLOATS)
    checks.rank(name, "x", x, 2)
    tokens, experts = x.shape
    checks.true(
        name, "group_count", group_count > 0 and experts % group_count == 0, group_count, f"a divisor of {experts}"
    )
    if group_select_mode == 1:
        checks.true(name, "group_count", experts >= 2 * group_count, group_count, "groups of two experts or more")
    checks.true(name, "k_group", 0 < k_group <= group_count, k_group, f"1..group_count={group_count}")
    checks.true(name, "k", 0 < k <= experts // group_count * k_group, k, f"1..{experts // group_count * k_group}")
    scores = torch.sigmoid(x.float()) if norm_type == 1 else torch.softmax(x.float(), -1)
    choice = scores
    if bias is not None:
        checks.shape(name, "bias", bias, (experts,))
        checks.dtype(name, "bias", bias, checks.FLOATS)
        choice = scores + bias.float()
    if group_count > 1 and k_group < group_count:
        grouped = choice.view(tokens, group_count, experts // group_count)
        rank = grouped.topk(2, -1).values.sum(-1) if group_select_mode == 1 else grouped.amax(-1)
        dropped = torch.ones_like(rank, dtype=torch.bool).scatter_(1, _top(rank, k_group), False)
        choice = grouped.masked_fill(dropped.unsqueeze(-1), float("-inf")).view(tokens, experts)
    index = _top(choice, k)
    weights = scores.gather(1, index)
    if norm_type == 1:
        weights = weights / (weights.sum(-1, keepdim=True) + eps)
    weights = weights * routed_scaling_factor
    return weights.to(x.dtype), index.int(), scores if out_flag else x.new_empty(0, dtype=torch.float32)
