# SPDX-License-Identifier: Apache-2.0
"""Grouped matrix products: the rows of one packed matrix are multiplied with the weight of their group (expert)."""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from . import checks
from .registry import op


def group_bounds(
    name: str, group_list: Tensor | Sequence[int], group_list_type: int, groups: int, rows: int
) -> list[int]:
    """Row bounds 0, e1, ..., eG of the groups; type 0 = cumulative ends, 1 = counts per group."""
    entries = group_list.tolist() if isinstance(group_list, Tensor) else [int(v) for v in group_list]
    if len(entries) != groups:
        raise checks.invalid(
            name, "group_list", f"for {len(entries)} groups", f"one entry for each of {groups} weights"
        )
    bounds = [0]
    for entry in entries:
        bounds.append(bounds[-1] + entry if group_list_type == 1 else entry)
    if any(b < a for a, b in itertools.pairwise(bounds)) or bounds[-1] > rows:
        kind = "counts" if group_list_type == 1 else "cumulative ends"
        raise checks.invalid(name, "group_list", entries, f"{kind} that never fall and stay within {rows} rows")
    return bounds


def multiply_groups(x: Tensor, weight: Tensor, bounds: Sequence[int], bias: Tensor | None = None) -> Tensor:
    """x [M, K], weight [G, K, N] → [M, N]. Rows past the last group are NaN: the kernel leaves them undefined."""
    out = x.new_empty(x.shape[0], weight.shape[2])
    for group, (begin, end) in enumerate(itertools.pairwise(bounds)):
        if end > begin:
            if bias is None:
                torch.mm(x[begin:end], weight[group], out=out[begin:end])
            else:
                torch.addmm(bias[group], x[begin:end], weight[group], out=out[begin:end])
    if bounds[-1] < x.shape[0]:
        out[bounds[-1] :] = float("nan")
    return out


def _multiply_groups_trained(x: Tensor, weight: Tensor, bounds: Sequence[int]) -> Tensor:
    parts = [x[b:e] @ weight[g] for g, (b, e) in enumerate(itertools.pairwise(bounds))]
    return torch.cat([*parts, x.new_full((x.shape[0] - bounds[-1], weight.shape[2]), float("nan"))])


def weight_gradient(x: Tensor, grad: Tensor, bounds: Sequence[int]) -> Tensor:
    """x [M, K], grad [M, N] → [G, K, N], the product over each group's rows (zero for an empty group)."""
    out = x.new_zeros(len(bounds) - 1, x.shape[1], grad.shape[1])
    for group, (begin, end) in enumerate(itertools.pairwise(bounds)):
        if end > begin:
            torch.mm(x[begin:end].t(), grad[begin:end], out=out[group])
    return out


@op(trained=True)
def npu_grouped_matmul(
    x: Sequence[Tensor],
    weight: Sequence[Tensor],
    *,
    bias: Sequence[Tensor] | None = None,
    scale: Sequence[Tensor] | None = None,
    offset: Sequence[Tensor] | None = None,
    antiquant_scale: Sequence[Tensor] | None = None,
    antiquant_offset: Sequence[Tensor] | None = None,
    per_token_scale: Sequence[Tensor] | None = None,
    group_list: Tensor | None = None,
    activation_input: Sequence[Tensor] | None = None,
    activation_quant_scale: Sequence[Tensor] | None = None,
    activation_quant_offset: Sequence[Tensor] | None = None,
    split_item: int = 0,
    group_type: int = -1,
    group_list_type: int = 0,
    act_type: int = 0,
    output_dtype: torch.dtype | None = None,
    tuning_config: Sequence[int] | None = None,
) -> tuple[Tensor, ...]:
    """One packed x and one stacked weight (``group_type`` 0, ``split_item`` 2 or 3), or list against list (-1, 0).

    Args:
        x: [[M, K]].   weight: [[G, K, N]] of the same dtype.
        group_list: int64 [G] on the device; ``group_list_type`` 0 = cumulative ends, 1 = counts.

    Returns:
        ([M, N],) for the packed form; one product per pair otherwise.
    """
    name = "npu_grouped_matmul"
    checks.absent(
        name,
        bias=bias,
        scale=scale,
        offset=offset,
        antiquant_scale=antiquant_scale,
        antiquant_offset=antiquant_offset,
        per_token_scale=per_token_scale,
        activation_input=activation_input,
        tuning_config=tuning_config,
        activation_quant_scale=activation_quant_scale,
        activation_quant_offset=activation_quant_offset,
    )
    checks.only(name, 0, act_type=act_type)
    checks.only(name, (0, 1), group_list_type=group_list_type)
    for label, tensors in (("x", x), ("weight", weight)):
        if isinstance(tensors, Tensor):
            raise checks.invalid(name, label, "a tensor", "a list of tensors")
    checks.dtype(name, "x", x[0], checks.FLOATS)
    for pair in zip(x, weight, strict=False):
        checks.same_dtype(name, x=pair[0], weight=pair[1])
    checks.only(name, (None, x[0].dtype), output_dtype=output_dtype)
    if group_type == -1:
        checks.only(name, (0, 1), split_item=split_item)
        checks.absent(name, group_list=group_list)
        checks.true(name, "weight", len(x) == len(weight), f"{len(weight)} tensors", f"one for each of {len(x)} x")
        return tuple(a @ b for a, b in zip(x, weight, strict=True))
    checks.only(name, 0, group_type=group_type)
    checks.only(name, (2, 3), split_item=split_item)
    if len(x) != 1 or len(weight) != 1:
        raise checks.unsupported(name, "x, weight", (len(x), len(weight)), "one packed x and one stacked weight")
    rows, stacked = x[0], weight[0]
    checks.rank(name, "x", rows, 2)
    checks.shape(name, "weight", stacked, (-1, rows.shape[1], -1))
    if not isinstance(group_list, Tensor):
        raise checks.invalid(name, "group_list", type(group_list).__name__, "an int64 npu tensor")
    checks.dtype(name, "group_list", group_list, checks.INT64)
    bounds = group_bounds(name, group_list, group_list_type, stacked.shape[0], rows.shape[0])
    recorded = torch.is_grad_enabled() and (rows.requires_grad or stacked.requires_grad)
    return ((_multiply_groups_trained if recorded else multiply_groups)(rows, stacked, bounds),)
