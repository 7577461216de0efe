# SPDX-License-Identifier: Apache-2.0
"""Expert-parallel dispatch and combine in one operator each (MC2, used by vLLM-Ascend's decode from EP 16 on).

Every rank holds ``moe_expert_num / ep_world_size`` consecutive experts. Dispatch sends each (token, k) row to the
rank of its expert and delivers the rows sorted by local expert, then by source rank; combine sends the results back
and sums them weighted. ``assist_info_for_combine`` carries (rank, token, k) of each delivered row. The rows, and
nothing else, are the operators' traffic (``torch_npu.sim.traffic``), under their own names.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from . import checks
from .registry import op

ASSIST_WIDTH = 128
"""int32 elements per delivered row that the real operator reserves in assist_info_for_combine; we use three."""


def find_group(name: str, group_ep: str, world_size: int, rank: int) -> Any:
    """The hccl backend of the process group whose HCCL communicator is called ``group_ep``."""
    if not dist.is_initialized():
        raise RuntimeError(f"{name}: torch.distributed is not initialised, so there is no group {group_ep!r}")
    for group in list(dist.distributed_c10d._world.pg_map):
        members = dist.get_process_group_ranks(group)
        if dist.get_rank() not in members:
            continue
        try:
            backend = group._get_backend(torch.device("npu"))
        except RuntimeError:  # a group of another backend
            continue
        if hasattr(backend, "get_hccl_comm_name") and backend.get_hccl_comm_name(dist.get_rank(group)) == group_ep:
            checks.true(
                name,
                "ep_world_size",
                len(members) == world_size,
                world_size,
                f"{len(members)}, the size of {group_ep!r}",
            )
            checks.true(
                name,
                "ep_rank_id",
                dist.get_rank(group) == rank,
                rank,
                f"{dist.get_rank(group)}, our rank in {group_ep!r}",
            )
            return backend
    raise checks.invalid(name, "group_ep", repr(group_ep), "the name of an HCCL communicator of this process")


def _exchange(rows: Tensor, send: list[int], receive: list[int], group: Any) -> Tensor:
    """all_to_all of rows [sum(send), ...] → [sum(receive), ...]."""
    result = rows.new_empty((sum(receive), *rows.shape[1:]))
    group.below.alltoall_base(result, rows.contiguous(), list(receive), list(send)).wait()
    return result


def _by_expert(expert_ids: Tensor, active: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(token, k, expert) [rows] of the rows that this rank sends, by expert and then by token."""
    k = expert_ids.shape[1]
    token, choice = active.nonzero().flatten().repeat_interleave(k), torch.arange(k).repeat(int(active.sum()))
    expert, order = torch.sort(expert_ids[active].flatten().long(), stable=True)
    return token[order], choice[order], expert


def _active(name: str, x_active_mask: Tensor | None, tokens: int) -> Tensor:
    if x_active_mask is None:
        return torch.ones(tokens, dtype=torch.bool)
    checks.dtype(name, "x_active_mask", x_active_mask, (torch.bool,))
    checks.shape(name, "x_active_mask", x_active_mask, (tokens,))
    return x_active_mask


def _check_common(
    name: str, x: Tensor, expert_ids: Tensor, moe_expert_num: int, ep_world_size: int, options: dict[str, Any]
) -> int:
    checks.dtype(name, "x", x, checks.FLOATS)
    checks.rank(name, "x", x, 2)
    checks.dtype(name, "expert_ids", expert_ids, checks.INT32)
    checks.rank(name, "expert_ids", expert_ids, 2)
    checks.only(name, (0, 1), tp_world_size=options.pop("tp_world_size"))
    checks.only(name, 0, **{key: options.pop(key) for key in list(options) if isinstance(options[key], int)})
    checks.absent(name, **options)
    checks.true(
        name,
        "moe_expert_num",
        moe_expert_num % ep_world_size == 0,
        moe_expert_num,
        f"a multiple of ep_world_size={ep_world_size}",
    )
    return moe_expert_num // ep_world_size


@op()
def npu_moe_distribute_dispatch_v2(
    x: Tensor,
    expert_ids: Tensor,
    group_ep: str,
    ep_world_size: int,
    ep_rank_id: int,
    moe_expert_num: int,
    *,
    scales: Tensor | None = None,
    x_active_mask: Tensor | None = None,
    expert_scales: Tensor | None = None,
    group_tp: str = "",
    tp_world_size: int = 0,
    tp_rank_id: int = 0,
    expert_shard_type: int = 0,
    shared_expert_num: int = 1,
    shared_expert_rank_num: int = 0,
    quant_mode: int = 0,
    global_bs: int = 0,
    expert_token_nums_type: int = 1,
    comm_alg: str = "",
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Send rows to their experts.

    Args:
        x: [T, H].   expert_ids: int32 [T, k].   x_active_mask: bool [T], False = padding, not sent.
        global_bs: the largest T of any rank times ``ep_world_size``; 0 = every rank has this T.
        expert_token_nums_type: 1 counts per local expert, 0 cumulative.

    Returns:
        (expand_x [A, H] where rows past the received ones are NaN, empty (quantisation scales), assist_info int32
        [A · 128], expert_token_nums int64 [local experts], ep_recv_counts int32 [ep_world_size · local experts],
        tp_recv_counts int32 [1], empty).
    """
    name = "npu_moe_distribute_dispatch_v2"
    local = _check_common(
        name,
        x,
        expert_ids,
        moe_expert_num,
        ep_world_size,
        {
            "scales": scales,
            "expert_scales": expert_scales,
            "tp_world_size": tp_world_size,
            "tp_rank_id": tp_rank_id,
            "expert_shard_type": expert_shard_type,
            "shared_expert_rank_num": shared_expert_rank_num,
            "quant_mode": quant_mode,
        },
    )
    checks.only(name, (0, 1), expert_token_nums_type=expert_token_nums_type)
    tokens, k = expert_ids.shape
    checks.true(name, "expert_ids", tokens == x.shape[0], f"for {tokens} tokens", f"{x.shape[0]} as x")
    group = find_group(name, group_ep, ep_world_size, ep_rank_id)
    token, choice, expert = _by_expert(expert_ids, _active(name, x_active_mask, tokens))
    sent = torch.bincount(expert, minlength=moe_expert_num).view(ep_world_size, local)
    received = _exchange(sent, [1] * ep_world_size, [1] * ep_world_size, group)
    send, receive = sent.sum(1).tolist(), received.sum(1).tolist()
    rows = x.index_select(0, token)
    arrived = _exchange(rows, send, receive, group)
    group.count_traffic(name, rows.nbytes, arrived.nbytes)
    place = _exchange(torch.stack((token, choice), 1).int(), send, receive, group)
    source = torch.arange(ep_world_size, dtype=torch.int32).repeat_interleave(torch.tensor(receive))

    # Arrived by source rank, then expert; wanted by expert, then source rank.
    arrived_expert = torch.arange(local).repeat(ep_world_size).repeat_interleave(received.flatten())
    by_expert = torch.sort(arrived_expert, stable=True).indices
    most_tokens = global_bs or tokens * ep_world_size
    capacity = max(most_tokens * min(local, k), sum(receive))
    expand_x = x.new_full((capacity, x.shape[1]), float("nan"))
    expand_x[: sum(receive)] = arrived[by_expert]
    assist = torch.zeros(capacity, ASSIST_WIDTH, dtype=torch.int32)
    assist[: sum(receive), 0] = source[by_expert]
    assist[: sum(receive), 1:3] = place[by_expert]
    per_expert = received.sum(0)
    nums = per_expert if expert_token_nums_type == 1 else per_expert.cumsum(0)
    counts = received.t().flatten().cumsum(0).int()
    nothing = x.new_empty(0, dtype=torch.float32)
    return (
        expand_x,
        nothing,
        assist.view(-1),
        nums,
        counts,
        torch.tensor([sum(receive)], dtype=torch.int32),
        nothing.clone(),
    )


@op()
def npu_moe_distribute_combine_v2(
    expand_x: Tensor,
    expert_ids: Tensor,
    assist_info_for_combine: Tensor,
    ep_send_counts: Tensor,
    expert_scales: Tensor,
    group_ep: str,
    ep_world_size: int,
    ep_rank_id: int,
    moe_expert_num: int,
    *,
    tp_send_counts: Tensor | None = None,
    x_active_mask: Tensor | None = None,
    activation_scale: Tensor | None = None,
    weight_scale: Tensor | None = None,
    group_list: Tensor | None = None,
    expand_scales: Tensor | None = None,
    shared_expert_x: Tensor | None = None,
    group_tp: str = "",
    tp_world_size: int = 0,
    tp_rank_id: int = 0,
    expert_shard_type: int = 0,
    shared_expert_num: int = 1,
    shared_expert_rank_num: int = 0,
    global_bs: int = 0,
    comm_quant_mode: int = 0,
    comm_alg: str = "",
) -> Tensor:
    """Send the experts' results back and sum each token's k rows weighted by ``expert_scales``.

    Args:
        expand_x, assist_info_for_combine, ep_send_counts: from dispatch (the first after the experts).
        expert_ids: int32 [T, k].   expert_scales: float32 [T, k].   x_active_mask: bool [T]; inactive tokens give 0.

    Returns:
        [T, H] like expand_x; float32 inside.
    """
    name = "npu_moe_distribute_combine_v2"
    local = _check_common(
        name,
        expand_x,
        expert_ids,
        moe_expert_num,
        ep_world_size,
        {
            "activation_scale": activation_scale,
            "weight_scale": weight_scale,
            "group_list": group_list,
            "expand_scales": expand_scales,
            "shared_expert_x": shared_expert_x,
            "tp_world_size": tp_world_size,
            "tp_rank_id": tp_rank_id,
            "expert_shard_type": expert_shard_type,
            "shared_expert_rank_num": shared_expert_rank_num,
            "comm_quant_mode": comm_quant_mode,
        },
    )
    checks.dtype(name, "expert_scales", expert_scales, (torch.float32,))
    checks.shape(name, "expert_scales", expert_scales, expert_ids.shape)
    checks.dtype(name, "assist_info_for_combine", assist_info_for_combine, checks.INT32)
    checks.dtype(name, "ep_send_counts", ep_send_counts, checks.INT32)
    checks.shape(name, "ep_send_counts", ep_send_counts, (ep_world_size * local,))
    group = find_group(name, group_ep, ep_world_size, ep_rank_id)
    total = int(ep_send_counts[-1])
    source = assist_info_for_combine.view(-1, ASSIST_WIDTH)[:total, 0].long()
    order = torch.sort(source, stable=True).indices
    send = torch.bincount(source, minlength=ep_world_size).tolist()
    # What dispatch sent comes back, in the same order.
    token, choice, expert = _by_expert(expert_ids, _active(name, x_active_mask, expert_ids.shape[0]))
    receive = torch.bincount(expert // local, minlength=ep_world_size).tolist()
    rows = expand_x[:total][order]
    returned = _exchange(rows, send, receive, group)
    group.count_traffic(name, rows.nbytes, returned.nbytes)
    weighted = returned.float() * expert_scales[token, choice].unsqueeze(1)
    out = torch.zeros(expert_ids.shape[0], expand_x.shape[1]).index_add_(0, token, weighted)
    return out.to(expand_x.dtype)
