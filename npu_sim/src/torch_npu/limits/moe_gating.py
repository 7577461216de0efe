# SPDX-License-Identifier: Apache-2.0
"""Limits of the operators that choose experts."""

from typing import Any

from torch_npu.limits import sources
from torch_npu.limits.conditions import dtype_of, given, size, value
from torch_npu.limits.fact import Arguments
from torch_npu.limits.rows import limits_of

_gate = limits_of("npu_moe_gating_top_k", sources.page("npu_moe_gating_top_k"))
_gate_source = limits_of("npu_moe_gating_top_k", sources.op_plugin("opapi/MoeGatingTopKKernelNpuOpApi.cpp"))
_softmax = limits_of("npu_moe_gating_top_k_softmax", sources.page("npu_moe_gating_top_k_softmax"))


def _softmax_with_maxima(norm_type: Any, arguments: Arguments) -> str | None:
    return f"{norm_type} with group_select_mode 0" if arguments["group_select_mode"] == 0 and norm_type != 0 else None


LIMITS = (
    _gate("x", "256 experts", size(-1, (256,))),
    _gate("k", "1 to 32", value(range(1, 33))),
    _gate("bias", "a tensor, not None", given),
    _gate_source("bias", "the dtype of x", dtype_of("x")),
    _gate("k_group", "4", value((4,))),
    _gate("group_count", "8", value((8,))),
    _gate("norm_type", "0 (softmax) with group_select_mode 0", _softmax_with_maxima),
    _gate("out_flag", "False", value((False,))),
    _softmax("k", "at most 1024", value(lambda k: k <= 1024)),
)
