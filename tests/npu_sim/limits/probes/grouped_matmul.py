# SPDX-License-Identifier: Apache-2.0
"""Probes of the grouped matrix products and of MindSpeed's products that add into float32."""

import torch
from torch import Tensor

from tests.npu_sim.limits.probes.tensors import Arguments, Inside, Outside, half, wide


def _ends(*numbers: int) -> Tensor:
    return torch.tensor(numbers, device="npu")


def _grouped() -> Arguments:
    return {
        "x": [half(6, 8)], "weight": [half(2, 5, 8).transpose(1, 2)], "split_item": 2, "group_type": 0,
        "group_list": _ends(2, 6), "group_list_type": 0,
    }  # fmt: skip


def _gmm() -> Arguments:
    return {
        "x": [half(6, 8)], "weight": [half(2, 8, 5)], "bias": [], "group_list": _ends(2, 6), "group_type": 0,
        "group_list_type": 0,
    }  # fmt: skip


def _gmm_backward() -> Arguments:
    return {
        "grad": [half(6, 5)], "x": [half(6, 8)], "weight": [half(2, 8, 5)], "group_list": [2, 6],
        "group_list_type": 0,
    }  # fmt: skip


_BACKWARD = "mindspeed.npu_gmm_backward"
_ADD = "mindspeed.npu_groupmatmul_add_fp32"

INSIDE: Inside = {
    "npu_grouped_matmul": _grouped,
    "mindspeed.npu_gmm": _gmm,
    _BACKWARD: _gmm_backward,
    _ADD: lambda: {"x": half(6, 8), "weight": half(6, 5), "group_list": _ends(2, 6), "grad": wide(16, 5)},
    "mindspeed.npu_matmul_add_fp32": lambda: {"x": half(6, 8), "weight": half(6, 5), "C": wide(8, 5)},
}

OUTSIDE: Outside = {
    ("npu_grouped_matmul", "x, weight", "an inner axis below 65536"): lambda: {
        "x": [half(1, 65536)], "weight": [half(2, 8, 65536)],
    },
    ("npu_grouped_matmul", "x", "a matrix that is not transposed"): lambda: {"x": [half(8, 6).t()]},
    ("npu_grouped_matmul", "weight", "2 dimensions each with group_type -1"): lambda: {
        "weight": [half(2, 8, 5)], "group_type": -1, "group_list": None, "split_item": 0,
    },
    ("npu_grouped_matmul", "group_list", "at most 1024 groups"): lambda: {"group_list": _ends(*range(1025))},
    ("npu_grouped_matmul", "group_list", "groups that cover all rows of x"): lambda: {"group_list": _ends(2, 5)},
    ("npu_grouped_matmul", "group_list", "more than one entry with group_list_type 1"): lambda: {
        "group_list": _ends(6), "weight": [half(1, 8, 5)], "group_list_type": 1,
    },
    ("mindspeed.npu_gmm", "x, weight", "an inner axis below 65536"): lambda: {
        "x": [half(1, 65536)], "weight": [half(2, 8, 65536)],
    },
    ("mindspeed.npu_gmm", "group_list", "at most 1024 groups"): lambda: {"group_list": _ends(*range(1025))},
    ("mindspeed.npu_gmm", "group_list", "groups that cover all rows of x"): lambda: {"group_list": [2, 5]},
    (_BACKWARD, "grad, weight", "an inner axis below 65536"): lambda: {
        "grad": [half(1, 65536)], "weight": [half(2, 8, 65536)],
    },
    (_BACKWARD, "group_list", "at most 1024 groups"): lambda: {"group_list": _ends(*range(1025))},
    (_BACKWARD, "group_list", "groups that cover all rows of x"): lambda: {"group_list": [2, 5]},
    (_ADD, "x, weight", "bfloat16 or float16"): lambda: {"x": wide(6, 8), "weight": wide(6, 5)},
    (_ADD, "x, weight", "1 to 65535 columns"): lambda: {"x": half(1, 65536), "weight": half(1, 65536)},
    (_ADD, "group_list", "at most 128 groups"): lambda: {"group_list": _ends(*range(129))},
    (_ADD, "grad", "[groups * K, N] or [K, groups * N]"): lambda: {"grad": wide(2, 8, 5)},
    ("mindspeed.npu_matmul_add_fp32", "x, weight", "bfloat16 or float16"): lambda: {
        "x": wide(6, 8), "weight": wide(6, 5),
    },
}  # fmt: skip
