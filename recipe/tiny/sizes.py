# SPDX-License-Identifier: Apache-2.0
"""The sizes in which the tiny DeepSeek-V3 comes, by their names in a run file and in Hugging Face's config.json."""

from __future__ import annotations

SMALLEST, LEGAL = "smallest", "legal"

SIZES = {
    # Small enough to learn something on two cores; no NPU's operators take its heads.
    SMALLEST: {
        "hidden_size": 128,
        "num_hidden_layers": 4,
        "intermediate_size": 192,
        "moe_intermediate_size": 64,
        "n_routed_experts": 8,
        # Half of the experts, so that one weighs little, as in the real model. With two, single tokens' probabilities
        # differed by up to 0.4 between rollout and trainer in bfloat16.
        "num_experts_per_tok": 4,
        # vLLM-Ascend scores expert groups otherwise than Hugging Face unless there are exactly 256 experts.
        "n_group": 1,
        "topk_group": 1,
        "num_attention_heads": 4,
        "q_lora_rank": 32,
        "kv_lora_rank": 32,
        "qk_rope_head_dim": 16,
        "qk_nope_head_dim": 16,
        "v_head_dim": 16,
    },
    # The least that the fused operators of an NPU take (docs/STRICTNESS.md): heads of 128 with a rotary part of 64 in
    # prefill, a latent of 512 in decode and 32 heads of it in graph mode, 256 experts in 8 groups of which 4 are kept.
    # Widths are whole blocks of 32 bytes.
    LEGAL: {
        "hidden_size": 128,
        "num_hidden_layers": 2,
        "intermediate_size": 192,
        "moe_intermediate_size": 32,
        "n_routed_experts": 256,
        "num_experts_per_tok": 8,
        "n_group": 8,
        "topk_group": 4,
        "num_attention_heads": 32,
        "q_lora_rank": 64,
        "kv_lora_rank": 512,
        "qk_rope_head_dim": 64,
        "qk_nope_head_dim": 128,
        "v_head_dim": 128,
    },
}
