# SPDX-License-Identifier: Apache-2.0
"""Limits of the operators that move tokens to the experts' order and back, on one device."""

from typing import Any

import torch
from torch import Tensor
from torch_npu.limits import sources
from torch_npu.limits.conditions import dtype_in, dtype_of, elements, shape_text, value
from torch_npu.limits.fact import Arguments
from torch_npu.limits.rows import limits_of

_MOST_SORTED = 16777214
"""CANN sorts the experts' numbers as floats: all row numbers must be exact in float32."""

_init = limits_of("npu_moe_init_routing", sources.page("npu_moe_init_routing"))
_init_source = limits_of("npu_moe_init_routing", sources.op_plugin("opapi/MoeInitRoutingKernelNpuOpApi.cpp"))
_count = limits_of(
    "npu_moe_compute_expert_tokens",
    sources.cann("moe/moe_compute_expert_tokens/op_host/moe_compute_expert_tokens_tiling.cpp"),
)
_count_page = limits_of("npu_moe_compute_expert_tokens", sources.page("npu_moe_compute_expert_tokens"))
_finalize = limits_of("npu_moe_finalize_routing", sources.page("npu_moe_finalize_routing"))
_permute = limits_of(
    "npu_moe_token_permute", sources.cann("moe/moe_token_permute/op_host/moe_token_permute_tiling.cpp")
)
_permute_jit = limits_of(
    "mindspeed.npu_moe_token_permute", sources.mindspeed("mindspeed/ops/csrc/cann/npu_moe_token_permute.cpp")
)
_unpermute_jit = limits_of(
    "mindspeed.npu_moe_token_unpermute", sources.mindspeed("mindspeed/ops/csrc/cann/npu_moe_token_unpermute.cpp")
)
_map = limits_of(
    "npu_moe_token_permute_with_routing_map",
    sources.cann("moe/moe_token_permute_with_routing_map/op_host/moe_token_permute_with_routing_map_tiling.cpp"),
)
_map_types = limits_of(
    "npu_moe_token_permute_with_routing_map",
    sources.cann("moe/moe_token_permute_with_routing_map/op_host/moe_token_permute_with_routing_map_def.cpp"),
)


def _sorted(experts: Tensor, _: Arguments) -> str | None:
    return "not sorted" if bool((experts[1:] < experts[:-1]).any()) else None


def _with_skip1(skip2: Any, arguments: Arguments) -> str | None:
    return "given without skip1" if arguments["skip1"] is None else None


def _choices(indices: Tensor, _: Arguments) -> str | None:
    return shape_text(indices) if indices.dim() == 2 and indices.shape[1] > 512 else None


def _rows_per_token(number: Any, arguments: Arguments) -> str | None:
    tokens = arguments["routing_map"].shape[0]
    return f"{number} for {tokens} tokens" if number and tokens and number // tokens > 512 else None


LIMITS = (
    _init(
        "x",
        "fewer than 2^24 elements",
        elements((1 << 24) - 1),
        contradiction="vLLM-Ascend 0.9.1 passes prompts of more than 2340 tokens of DeepSeek-V3 at once and CANN's "
        "tiling does not check it",
    ),
    _init_source("active_num", "no negative number", value(lambda number: number >= 0)),
    _count("num_expert", "1 to 2048", value(range(1, 2049))),
    _count("sorted_experts", "at most 2^24 rows", elements(1 << 24)),
    _count_page("sorted_experts", "experts in ascending order: the kernel searches by halving", _sorted),
    _finalize("skip1, skip2, bias", "the dtype of expanded_permuted_rows", dtype_of("expanded_permuted_rows")),
    _finalize("skip2", "a tensor only where skip1 is one", _with_skip1),
    _permute("indices", "at most 512 experts a token", _choices),
    _permute("indices", "fewer than 16777215 elements", elements(_MOST_SORTED)),
    _permute_jit("tokens", "bfloat16", dtype_in(torch.bfloat16), half_types_only=True),
    _unpermute_jit("permuted_tokens, probs", "bfloat16", dtype_in(torch.bfloat16), half_types_only=True),
    _map_types("probs", "the dtype of tokens", dtype_of("tokens")),
    _map("num_out_tokens", "at most 512 rows a token", _rows_per_token),
)
