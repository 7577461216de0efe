# SPDX-License-Identifier: Apache-2.0
"""Probes of the operators that move tokens to the experts' order and back, on one device."""

import torch
from torch import Tensor

from tests.npu_sim.limits.probes.tensors import Arguments, Inside, Outside, counts, half, wide


def _flags(tokens: int, experts: int) -> Tensor:
    return torch.ones(tokens, experts, dtype=torch.bool, device="npu")


def _huge(rows: int, columns: int = 1) -> Tensor:
    return torch.zeros(rows, columns, dtype=torch.int32, device="npu")


def _finalize() -> Arguments:
    return {
        "expanded_permuted_rows": half(4, 8), "skip1": half(2, 8), "skip2": half(2, 8), "bias": half(3, 8),
        "scales": half(2, 2), "expanded_src_to_dst_row": counts(0, 1, 2, 3),
        "export_for_source_row": counts(0, 1, 2, 0).view(2, 2),
    }  # fmt: skip


INSIDE: Inside = {
    "npu_moe_init_routing": lambda: {
        "x": half(2, 8),
        "row_idx": counts(0, 2, 1, 3).view(2, 2),
        "expert_idx": counts(0, 1, 1, 2).view(2, 2),
        "active_num": 2,
    },
    "npu_moe_compute_expert_tokens": lambda: {"sorted_experts": counts(0, 0, 3), "num_expert": 2048},
    "npu_moe_finalize_routing": _finalize,
    "npu_moe_token_permute": lambda: {"tokens": half(2, 8), "indices": counts(*range(1024)).view(2, 512)},
    "mindspeed.npu_moe_token_permute": lambda: {"tokens": half(2, 8), "indices": counts(0, 1, 1, 2).view(2, 2)},
    "mindspeed.npu_moe_token_unpermute": lambda: {
        "permuted_tokens": half(4, 8),
        "sorted_indices": counts(0, 1, 2, 3),
        "probs": half(2, 2),
    },
    "npu_moe_token_permute_with_routing_map": lambda: {
        "tokens": half(2, 8), "routing_map": _flags(2, 3), "probs": half(2, 3), "num_out_tokens": 6,
    },
}  # fmt: skip

OUTSIDE: Outside = {
    ("npu_moe_init_routing", "x", "fewer than 2^24 elements"): lambda: {"x": half(2, 1 << 23)},
    ("npu_moe_init_routing", "active_num", "no negative number"): lambda: {"active_num": -1},
    ("npu_moe_compute_expert_tokens", "num_expert", "1 to 2048"): lambda: {"num_expert": 2049},
    ("npu_moe_compute_expert_tokens", "sorted_experts", "at most 2^24 rows"): lambda: {
        "sorted_experts": _huge((1 << 24) + 1).view(-1)
    },
    (
        "npu_moe_compute_expert_tokens",
        "sorted_experts",
        "experts in ascending order: the kernel searches by halving",
    ): lambda: {"sorted_experts": counts(0, 3, 1)},
    ("npu_moe_finalize_routing", "skip1, skip2, bias", "the dtype of expanded_permuted_rows"): lambda: {
        "skip1": wide(2, 8), "skip2": wide(2, 8), "bias": wide(3, 8),
    },
    ("npu_moe_finalize_routing", "skip2", "a tensor only where skip1 is one"): lambda: {
        "skip2": half(2, 8), "skip1": None,
    },
    ("npu_moe_token_permute", "indices", "at most 512 experts a token"): lambda: {"indices": _huge(2, 513)},
    ("npu_moe_token_permute", "indices", "fewer than 16777215 elements"): lambda: {"indices": _huge(16777215)},
    ("mindspeed.npu_moe_token_permute", "tokens", "bfloat16"): lambda: {"tokens": half(2, 8).half()},
    ("mindspeed.npu_moe_token_unpermute", "permuted_tokens, probs", "bfloat16"): lambda: {
        "permuted_tokens": wide(4, 8), "probs": wide(2, 2),
    },
    ("npu_moe_token_permute_with_routing_map", "probs", "the dtype of tokens"): lambda: {"probs": wide(2, 3)},
    ("npu_moe_token_permute_with_routing_map", "num_out_tokens", "at most 512 rows a token"): lambda: {
        "num_out_tokens": 1026, "routing_map": _flags(2, 513),
    },
}  # fmt: skip
