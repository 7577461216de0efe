# SPDX-License-Identifier: Apache-2.0
"""The tiny models, one of each kind that can be trained: what their ``config.json`` says beside what all share."""

from __future__ import annotations

from typing import Any

DEEPSEEK_V3, MOONLIGHT, QWEN3_MOE, QWEN3, QWEN2, LLAMA = (
    "deepseek_v3", "moonlight", "qwen3_moe", "qwen3", "qwen2", "llama"
)  # fmt: skip

# Heads of 128, for which vLLM-Ascend has a rotary operator of their own, are wider together than the model is, as
# Qwen3's are. Queries in groups of two.
_WIDE_HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 128}
_NARROW_HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2}
_DENSE = {"hidden_size": 128, "num_hidden_layers": 4, "intermediate_size": 384, "hidden_act": "silu"}
_LONG = {"max_position_embeddings": 2048, "rope_scaling": None, "sliding_window": None}

# Grouped-query attention without a latent; sizes that an NPU's operators take (docs/STRICTNESS.md).
GROUPED: dict[str, dict[str, Any]] = {
    # As Qwen3-30B-A3B: no shared expert, a softmax over all experts, every layer with experts.
    QWEN3_MOE: {
        **_DENSE, **_WIDE_HEADS, **_LONG,
        "model_type": "qwen3_moe",
        "architectures": ["Qwen3MoeForCausalLM"],
        "attention_bias": False,
        "moe_intermediate_size": 64,
        "num_experts": 8,
        # Half of the experts, so that one weighs little, as in the real model.
        "num_experts_per_tok": 4,
        "norm_topk_prob": True,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "router_aux_loss_coef": 0.001,
        "output_router_logits": False,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0,
        "tie_word_embeddings": False,
    },
    QWEN3: {
        **_DENSE, **_WIDE_HEADS, **_LONG,
        "model_type": "qwen3",
        "architectures": ["Qwen3ForCausalLM"],
        "attention_bias": False,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0,
        "tie_word_embeddings": False,
    },
    # Biases of q, k and v, and one matrix for embedding and head, as Qwen2.5 has them up to 3B.
    QWEN2: {
        **_DENSE, **_NARROW_HEADS, **_LONG,
        "model_type": "qwen2",
        "architectures": ["Qwen2ForCausalLM"],
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0,
        "use_sliding_window": False,
        "tie_word_embeddings": True,
    },
    # Positions scaled as Llama 3.1 scales them.
    LLAMA: {
        **_DENSE, **_NARROW_HEADS,
        "max_position_embeddings": 16384,
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "mlp_bias": False,
        "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0,
        "tie_word_embeddings": False,
    },
}  # fmt: skip

# Moonlight-16B-A3B: DeepSeek-V3's architecture without a latent for queries, without groups of experts, and with plain
# rotary embeddings.
MOONLIGHT_CHANGES: dict[str, Any] = {
    "q_lora_rank": None,
    "n_group": 1,
    "topk_group": 1,
    "n_shared_experts": 2,
    "routed_scaling_factor": 2.446,
    "rope_theta": 50000.0,
    "rope_scaling": None,
}

MEMBERS = (DEEPSEEK_V3, MOONLIGHT, *GROUPED)
