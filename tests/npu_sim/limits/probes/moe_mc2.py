# SPDX-License-Identifier: Apache-2.0
"""Probes of dispatch and combine. No group is needed: limits come before it is looked for."""

import torch
from torch import Tensor

from tests.npu_sim.limits.probes.tensors import Arguments, Inside, Outside, counts, half, wide


def _ids(tokens: int, experts: int) -> Tensor:
    return torch.arange(experts, dtype=torch.int32, device="npu").expand(tokens, experts).contiguous()


def _flags(*active: bool) -> Tensor:
    return torch.tensor(active, device="npu")


def _common() -> Arguments:
    return {
        "expert_ids": _ids(2, 8), "group_ep": "a", "ep_world_size": 16, "ep_rank_id": 0, "moe_expert_num": 256,
        "x_active_mask": _flags(True, False), "expert_shard_type": 0, "shared_expert_rank_num": 0,
        "shared_expert_num": 1, "global_bs": 32,
        "group_tp": "b", "tp_world_size": 1, "tp_rank_id": 0,
    }  # fmt: skip


def _combine() -> Arguments:
    return {
        **_common(),
        "expand_x": half(2, 7168),
        "assist_info_for_combine": torch.zeros(256, dtype=torch.int32, device="npu"),
        "ep_send_counts": torch.zeros(256, dtype=torch.int32, device="npu"),
        "expert_scales": wide(2, 8),
    }


def _outside(operator: str, rows: str) -> Outside:
    return {
        (operator, rows, "bfloat16 or float16"): lambda: {rows: wide(2, 7168)},
        (operator, rows, "1024 to 7168 columns"): lambda: {rows: half(2, 512)},
        (operator, "expert_ids", "1 to 512 tokens (A2: to 256)"): lambda: {"expert_ids": _ids(513, 8)},
        (operator, "expert_ids", "1 to 16 experts a token"): lambda: {"expert_ids": _ids(2, 17)},
        (operator, "expert_ids", "experts that exist"): lambda: {"expert_ids": counts(1, 2, 3, 256).view(2, 2)},
        (operator, "expert_ids", "each expert at most once for a token"): lambda: {
            "expert_ids": counts(1, 2, 3, 3).view(2, 2)
        },
        (operator, "ep_world_size", "2 to 384 (A2: 16, 32 or 64)"): lambda: {"ep_world_size": 1},
        (operator, "moe_expert_num", "1 to 512"): lambda: {"moe_expert_num": 1024},
        (operator, "global_bs", "as many tokens as HCCL_BUFFSIZE has room for"): lambda: {"global_bs": 16 * 32},
        (operator, "x_active_mask", "all True before all False"): lambda: {"x_active_mask": _flags(False, True)},
        (operator, "group_tp", "another group than group_ep"): lambda: {"group_tp": "a"},
    }


INSIDE: Inside = {
    "npu_moe_distribute_dispatch_v2": lambda: {**_common(), "x": half(2, 7168)},
    "npu_moe_distribute_combine_v2": _combine,
}

OUTSIDE: Outside = {
    **_outside("npu_moe_distribute_dispatch_v2", "x"),
    **_outside("npu_moe_distribute_combine_v2", "expand_x"),
}
