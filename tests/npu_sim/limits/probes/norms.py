# SPDX-License-Identifier: Apache-2.0
"""Probes of norms, activations, the masked softmax and the sampling filter."""

import torch

from tests.npu_sim.limits.probes.tensors import Inside, Outside, counts, half, strided

DIMENSIONS_9 = (1,) * 8 + (2,)

INSIDE: Inside = {
    "npu_rms_norm": lambda: {"x": half(2, 16), "gamma": half(16)},
    "npu_swiglu": lambda: {"self": half(2, 16)},
    "npu_fast_gelu": lambda: {"self": half(2, 16)},
    "npu_scaled_masked_softmax": lambda: {
        "x": half(1, 2, 32, 64),
        "mask": torch.zeros(1, 1, 32, 64, dtype=torch.bool, device="npu"),
    },
    "npu_top_k_top_p": lambda: {"logits": half(2, 2000), "p": half(2) / 2, "k": counts(1, 1024)},
}

OUTSIDE: Outside = {
    ("npu_rms_norm", "x", "2 to 8 dimensions"): lambda: {"x": half(16)},
    ("npu_swiglu", "self", "a contiguous tensor"): lambda: {"self": strided(2, 16)},
    ("npu_swiglu", "self", "a tensor that is not empty"): lambda: {"self": half(0, 16)},
    ("npu_swiglu", "self", "1 to 8 dimensions"): lambda: {"self": half(*DIMENSIONS_9)},
    ("npu_fast_gelu", "self", "at most 8 dimensions"): lambda: {"self": half(*DIMENSIONS_9)},
    ("npu_scaled_masked_softmax", "x", "32 to 4096 rows, a multiple of 32"): lambda: {"x": half(1, 2, 48, 64)},
    ("npu_scaled_masked_softmax", "x", "32 to 4096 columns, a multiple of 32"): lambda: {"x": half(1, 2, 32, 16)},
    ("npu_scaled_masked_softmax", "fixed_triu_mask", "False"): lambda: {"fixed_triu_mask": True},
    ("npu_top_k_top_p", "p", "values from 0 to 1"): lambda: {"p": half(2) * 2},
    ("npu_top_k_top_p", "k", "values from 1 to 1024"): lambda: {"k": counts(1, 2000)},
}
