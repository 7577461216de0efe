# SPDX-License-Identifier: Apache-2.0
"""Simulated NPU operators.

``PUBLIC`` maps names of ``torch_npu`` (and ``ATB`` of ``torch_npu.atb``) to functions; the package's ``__init__``
installs them. ``NOT_SIMULATED`` lists operators that the pinned vLLM-Ascend and MindSpeed name on paths this
simulator leaves out (quantisation, multimodal rope, KV transfer, fused collectives); calling any of them raises by
name.
"""

from collections.abc import Callable

from . import (
    attention_mla,
    attention_paged,
    attention_train,
    grouped_matmul,
    kv_cache,
    layout,
    mindspeed_jit,
    moe_gating,
    moe_mc2,
    moe_routing,
    norm_act,
    rotary,
    sampling,
)
from .registry import counts, reset_counts

_FUNCTIONS: tuple[Callable, ...] = (
    norm_act.npu_rms_norm,
    norm_act.npu_add_rms_norm,
    norm_act.npu_swiglu,
    norm_act.npu_fast_gelu,
    norm_act.npu_scaled_masked_softmax,
    rotary.npu_rotary_mul,
    rotary.npu_rotary_position_embedding,
    rotary.npu_apply_rotary_pos_emb,
    rotary._npu_rotary_embedding,
    rotary.npu_interleave_rope,
    attention_train.npu_fusion_attention,
    attention_mla._npu_paged_attention_mla,
    attention_mla.npu_fused_infer_attention_score,
    attention_paged._npu_flash_attention,
    attention_paged._npu_flash_attention_qlens,
    attention_paged._npu_paged_attention_splitfuse,
    attention_paged._npu_paged_attention,
    kv_cache._npu_reshape_and_cache,
    kv_cache.npu_kv_rmsnorm_rope_cache,
    grouped_matmul.npu_grouped_matmul,
    moe_gating.npu_moe_gating_top_k_softmax,
    moe_gating.npu_moe_gating_top_k,
    moe_routing.npu_moe_init_routing,
    moe_routing.npu_moe_compute_expert_tokens,
    moe_routing.npu_moe_finalize_routing,
    moe_routing.npu_moe_token_permute,
    moe_routing.npu_moe_token_unpermute,
    moe_routing.npu_moe_token_permute_with_routing_map,
    moe_routing.npu_moe_token_permute_with_routing_map_grad,
    moe_routing._npu_moe_token_unpermute_with_routing_map,
    moe_routing.npu_moe_token_unpermute_with_routing_map_grad,
    moe_mc2.npu_moe_distribute_dispatch_v2,
    moe_mc2.npu_moe_distribute_combine_v2,
    sampling.npu_top_k_top_p,
    layout.npu_format_cast,
    layout.npu_format_cast_,
    layout.get_npu_format,
    layout.npu_prefetch,
)

PUBLIC: dict[str, Callable] = {function.__name__: function for function in _FUNCTIONS}
"""Name in ``torch_npu`` → operator."""

ATB: dict[str, Callable] = {
    "npu_ring_mla": attention_mla.npu_ring_mla,
    "npu_multi_head_latent_attention": attention_mla.npu_multi_head_latent_attention,
    "npu_paged_cache_load": kv_cache.npu_paged_cache_load,
}
"""Name in ``torch_npu.atb`` → operator."""

NOT_SIMULATED: frozenset[str] = frozenset(
    {
        # quantisation
        "npu_add_rms_norm_quant",
        "npu_convert_weight_to_int4pack",
        "npu_dequant_swiglu_quant",
        "npu_dynamic_quant",
        "npu_moe_init_routing_quant",
        "npu_moe_re_routing",
        "npu_quant_matmul",
        "npu_quantize",
        "npu_weight_quant_batchmatmul",
        "_npu_quant_rms_norm",
        # older forms that the code takes only where the newer one is missing
        "npu_moe_distribute_dispatch",
        "npu_moe_distribute_combine",
        "_npu_group_topk",
        # multimodal models, KV transfer
        "npu_mrope",
        "_npu_flash_attention_unpad",
        "_npu_reshape_and_cache_siso",
        "scatter_update_",
        # MindSpeed: context parallelism, fused collectives, compression, its own optimisers
        "npu_fusion_attention_grad",
        "npu_all_gather_base_mm",
        "npu_mm_reduce_scatter_base",
        "npu_hans_encode",
        "npu_hans_decode",
        "npu_apply_fused_ema_adamw",
        "npu_matmul_add_fp32",
    }
)
"""Operators the pinned upstreams name and this simulator does not have."""

mindspeed_jit.install()

__all__ = ["ATB", "NOT_SIMULATED", "PUBLIC", "counts", "reset_counts"]
