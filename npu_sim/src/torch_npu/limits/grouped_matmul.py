# SPDX-License-Identifier: Apache-2.0
"""Limits of the grouped matrix products and of MindSpeed's products that add into float32."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch_npu.limits import sources
from torch_npu.limits.conditions import half_types, rank, size
from torch_npu.limits.fact import Arguments
from torch_npu.limits.rows import limits_of

_grouped = limits_of("npu_grouped_matmul", sources.page("npu_grouped_matmul"))
_gmm = limits_of("mindspeed.npu_gmm", sources.cann("gmm/grouped_matmul/docs/aclnnGroupedMatmulV4.md"))
_add = limits_of("mindspeed.npu_groupmatmul_add_fp32", sources.atb("grouped_matmul_inplace_add"))
_add_types = limits_of("mindspeed.npu_groupmatmul_add_fp32", sources.ATB_TABLE)
_product_types = limits_of("mindspeed.npu_matmul_add_fp32", sources.ATB_TABLE)

INNER_LIMIT = 65536


def _row_by_row(x: Tensor, _: Arguments) -> str | None:
    transposed = x.dim() == 2 and x.stride(0) == 1 and x.stride(1) == x.shape[0] and x.shape[0] > 1 < x.shape[1]
    return "transposed" if transposed else None


def _inner(tensor: Tensor, _: Arguments) -> str | None:
    # The inner axis is the one that lies row by row in memory: of a transposed weight the last but one.
    transposed = tensor.dim() >= 2 and tensor.stride(-2) == 1 and tensor.stride(-1) != 1
    inner = tensor.shape[-2] if transposed else tensor.shape[-1]
    return None if inner < INNER_LIMIT else f"of an inner axis of {inner}"


def _entries(group_list: Tensor | Sequence[int]) -> list[int]:
    return group_list.tolist() if isinstance(group_list, Tensor) else list(group_list)


def _covers_all_rows(group_list: Tensor | Sequence[int], arguments: Arguments) -> str | None:
    entries, rows = _entries(group_list), arguments["x"][0].shape[0]
    total = sum(entries) if arguments["group_list_type"] == 1 else (entries[-1] if entries else 0)
    return None if total == rows else f"for {total} rows, x has {rows}"


def _groups(most: int) -> Any:
    def found(group_list: Tensor | Sequence[int], _: Arguments) -> str | None:
        return None if len(group_list) <= most else f"of {len(group_list)} groups"

    return found


def _several_counts(group_list: Tensor, arguments: Arguments) -> str | None:
    return "one count" if arguments["group_list_type"] == 1 and len(group_list) == 1 else None


def _flat_weight(weight: Tensor, arguments: Arguments) -> str | None:
    return rank(2, 2)(weight, arguments) if arguments["group_type"] == -1 else None


def _stored(grad: Tensor, arguments: Arguments) -> str | None:
    groups = len(arguments["group_list"])
    rows, columns = arguments["x"].shape[-1], arguments["weight"].shape[-1]
    accepted = ([groups * rows, columns], [rows, groups * columns])
    return None if list(grad.shape) in accepted else f"of shape {list(grad.shape)} for {groups} groups"


LIMITS = (
    _grouped("x, weight", "an inner axis below 65536", _inner),
    _grouped("x", "a matrix that is not transposed", _row_by_row),
    _grouped("weight", "2 dimensions each with group_type -1", _flat_weight),
    _grouped("group_list", "at most 1024 groups", _groups(1024)),
    _grouped(
        "group_list",
        "groups that cover all rows of x",
        _covers_all_rows,
        contradiction="vLLM-Ascend 0.9.1 passes what npu_moe_distribute_dispatch_v2 gave it, which has room for more "
        "rows than came",
    ),
    _grouped(
        "group_list",
        "more than one entry with group_list_type 1",
        _several_counts,
        contradiction="vLLM-Ascend 0.9.1 passes one where each die has one expert",
    ),
    _gmm("x, weight", "an inner axis below 65536", _inner),
    _gmm("group_list", "at most 1024 groups", _groups(1024)),
    _gmm(
        "group_list",
        "groups that cover all rows of x",
        lambda group_list, arguments: _covers_all_rows(group_list, arguments) if arguments["group_type"] == 0 else None,
    ),
    _add_types("x, weight", "bfloat16 or float16", half_types, half_types_only=True),
    _add("x, weight", "1 to 65535 columns", size(-1, range(1, 65536))),
    _add("group_list", "at most 128 groups", _groups(128)),
    _add("grad", "[groups * K, N] or [K, groups * N]", _stored),
    _product_types("x, weight", "bfloat16 or float16", half_types, half_types_only=True),
)
