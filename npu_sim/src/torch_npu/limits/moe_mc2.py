# SPDX-License-Identifier: Apache-2.0
"""Limits of the dispatch and combine of tokens over dies (MC2), as the pages have them for A3."""

from torch import Tensor
from torch_npu.limits import sources
from torch_npu.limits.conditions import Condition, half_types, shape_text, size, value
from torch_npu.limits.fact import Arguments, CallLimit
from torch_npu.limits.rows import limits_of


def _valid_once(expert_ids: Tensor, arguments: Arguments) -> str | None:
    experts = arguments["moe_expert_num"]
    if expert_ids.numel() == 0:
        return None
    ordered = expert_ids.sort(-1).values
    if int(ordered.min()) < 0 or int(ordered.max()) >= experts:
        return f"between {int(ordered.min())} and {int(ordered.max())} for {experts} experts"
    return "twice the same for a token" if bool((ordered[:, 1:] == ordered[:, :-1]).any()) else None


def _active_first(mask: Tensor, _: Arguments) -> str | None:
    return "True after False" if bool((mask[1:] & ~mask[:-1]).any()) else None


def _other_group(group_tp: str, arguments: Arguments) -> str | None:
    return f"{group_tp!r}, as group_ep" if group_tp and group_tp == arguments["group_ep"] else None


def _tokens(most: int) -> Condition:
    return lambda ids, _: None if 0 < ids.shape[0] <= most else shape_text(ids)


def _rows(operator: str, rows_name: str) -> tuple[CallLimit, ...]:
    row = limits_of(operator, sources.page(operator))
    return (
        row(rows_name, "bfloat16 or float16", half_types, half_types_only=True),
        row(rows_name, "1024 to 7168 columns", size(-1, range(1024, 7169))),
        row("expert_ids", "1 to 512 tokens", _tokens(512)),
        row("expert_ids", "1 to 16 experts a token", size(-1, range(1, 17))),
        row("expert_ids", "experts that exist, each once for a token", _valid_once),
        row("ep_world_size", "2 to 384", value(range(2, 385))),
        row("moe_expert_num", "1 to 512", value(range(1, 513))),
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
