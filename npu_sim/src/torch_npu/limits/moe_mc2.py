# SPDX-License-Identifier: Apache-2.0
"""Limits of the dispatch and combine of tokens over dies (MC2), as the pages have them for A3 and for A2."""

import os

from torch import Tensor
from torch_npu.limits import sources
from torch_npu.limits.conditions import half_types, on_a2, shape_text, size, value, values
from torch_npu.limits.fact import Arguments, CallLimit
from torch_npu.limits.rows import limits_of


def _existing(expert_ids: Tensor, arguments: Arguments) -> str | None:
    found = values(0, arguments["moe_expert_num"] - 1)(expert_ids, arguments)
    return f"{found} for {arguments['moe_expert_num']} experts" if found else None


def _each_once(expert_ids: Tensor, _: Arguments) -> str | None:
    ordered = expert_ids.sort(-1).values
    return "twice the same for a token" if bool((ordered[:, 1:] == ordered[:, :-1]).any()) else None


def _active_first(mask: Tensor, _: Arguments) -> str | None:
    return "True after False" if bool((mask[1:] & ~mask[:-1]).any()) else None


def _other_group(group_tp: str, arguments: Arguments) -> str | None:
    return f"{group_tp!r}, as group_ep" if group_tp and group_tp == arguments["group_ep"] else None


_BUFFER_MIB = 200
"""HCCL_BUFFSIZE where the environment does not set it."""


def _aligned(size: int, step: int) -> int:
    return -(-size // step) * step


def _buffered(global_bs: int, arguments: Arguments) -> str | None:
    """Two buffers, each with room for what a die is sent at most and, on an A3, for what it sends back."""
    experts, choices = arguments["moe_expert_num"], arguments["expert_ids"].shape[-1]
    dies = max(1, arguments["ep_world_size"] - arguments["shared_expert_rank_num"])
    tokens = global_bs // arguments["ep_world_size"] if global_bs else arguments["expert_ids"].shape[0]
    row = 2 * (arguments["x"] if "x" in arguments else arguments["expand_x"]).shape[-1]
    if on_a2():
        sent = min(experts // dies, choices) * tokens * arguments["ep_world_size"] * row
        returned = 2 * 2**20
    else:
        sent = experts // dies * tokens * arguments["ep_world_size"] * _aligned(_aligned(row, 32) + 64, 512)
        returned = (choices + arguments["shared_expert_num"]) * tokens * _aligned(row, 512)
    wanted, there = 2 * (sent + returned), int(os.environ.get("HCCL_BUFFSIZE", _BUFFER_MIB))
    if wanted <= there * 2**20:
        return None
    return f"{global_bs} ({tokens} tokens a die), which wants HCCL_BUFFSIZE {-(-wanted // 2**20)} and it is {there}"


def _tokens(ids: Tensor, _: Arguments) -> str | None:
    return None if 0 < ids.shape[0] <= (256 if on_a2() else 512) else shape_text(ids)


def _dies(number: int, _: Arguments) -> str | None:
    taken = number in (16, 32, 64) if on_a2() else 2 <= number <= 384
    return None if taken else f"{number}{' on an A2' if on_a2() else ''}"


def _rows(operator: str, rows_name: str) -> tuple[CallLimit, ...]:
    row = limits_of(operator, sources.page(operator))
    return (
        row(rows_name, "bfloat16 or float16", half_types, half_types_only=True),
        row(rows_name, "1024 to 7168 columns", size(-1, range(1024, 7169))),
        row("expert_ids", "1 to 512 tokens (A2: to 256)", _tokens),
        row("expert_ids", "1 to 16 experts a token", size(-1, range(1, 17))),
        row("expert_ids", "experts that exist", _existing),
        row(
            "expert_ids",
            "each expert at most once for a token",
            _each_once,
            contradiction="vLLM-Ascend 0.9.1 draws them at random in its profile run",
        ),
        row("ep_world_size", "2 to 384 (A2: 16, 32 or 64)", _dies),
        row("moe_expert_num", "1 to 512", value(range(1, 513))),
        row("global_bs", "as many tokens as HCCL_BUFFSIZE has room for", _buffered),
        row("x_active_mask", "all True before all False", _active_first),
        row(
            "group_tp",
            "another group than group_ep",
            _other_group,
            contradiction="vLLM-Ascend 0.9.1 passes the same, with a tp_world_size of 1",
        ),
    )


LIMITS = (
    *_rows("npu_moe_distribute_dispatch_v2", "x"),
    *_rows("npu_moe_distribute_combine_v2", "expand_x"),
)
