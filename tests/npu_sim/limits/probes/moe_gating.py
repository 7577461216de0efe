# SPDX-License-Identifier: Apache-2.0
"""Probes of the operators that choose experts."""

from tests.npu_sim.limits.probes.tensors import Inside, Outside, half, wide

_GATE = "npu_moe_gating_top_k"

INSIDE: Inside = {
    _GATE: lambda: {  # as vLLM-Ascend calls it for DeepSeek-V3
        "x": half(2, 256), "k": 8, "bias": half(256), "k_group": 4, "group_count": 8, "group_select_mode": 1,
        "renorm": 0, "norm_type": 1, "routed_scaling_factor": 1, "eps": 1e-20,
    },
    "npu_moe_gating_top_k_softmax": lambda: {"x": half(2, 2048), "k": 1024},
}  # fmt: skip

OUTSIDE: Outside = {
    (_GATE, "x", "256 experts"): lambda: {"x": half(2, 64)},
    (_GATE, "k", "1 to 32"): lambda: {"k": 33},
    (_GATE, "bias", "a tensor, not None"): lambda: {"bias": None},
    (_GATE, "bias", "the dtype of x"): lambda: {"bias": wide(256)},
    (_GATE, "k_group", "4"): lambda: {"k_group": 3},
    (_GATE, "group_count", "8"): lambda: {"group_count": 4},
    (_GATE, "norm_type", "0 (softmax) with group_select_mode 0"): lambda: {"norm_type": 1, "group_select_mode": 0},
    (_GATE, "out_flag", "False"): lambda: {"out_flag": True},
    ("npu_moe_gating_top_k_softmax", "k", "at most 1024"): lambda: {"k": 1025},
}
