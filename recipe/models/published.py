# SPDX-License-Identifier: Apache-2.0
"""config.json of published models, by the names that a run file can give them.

As their makers publish them (huggingface.co/deepseek-ai/DeepSeek-V3-Base, moonshotai/Moonlight-16B-A3B,
moonshotai/Kimi-K2-Instruct, Qwen/Qwen3-..., Qwen/Qwen2.5-..., meta-llama/Llama-3.1-...), without what nothing here
reads; a test counts the parameters of each.
"""

from __future__ import annotations

from typing import Any

from recipe.models.architecture import Architecture
from recipe.models.families import describe

_FP8 = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}
_V3: dict[str, Any] = {
    "architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", "vocab_size": 129280, "hidden_size": 7168,
    "intermediate_size": 18432, "moe_intermediate_size": 2048, "num_hidden_layers": 61, "first_k_dense_replace": 3,
    "moe_layer_freq": 1, "n_routed_experts": 256, "n_shared_experts": 1, "num_experts_per_tok": 8, "n_group": 8,
    "topk_group": 4, "topk_method": "noaux_tc", "scoring_func": "sigmoid", "norm_topk_prob": True,
    "routed_scaling_factor": 2.5, "num_attention_heads": 128, "num_key_value_heads": 128, "q_lora_rank": 1536,
    "kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
    "num_nextn_predict_layers": 1, "tie_word_embeddings": False, "attention_bias": False, "hidden_act": "silu",
    "rms_norm_eps": 1e-06, "rope_theta": 10000, "max_position_embeddings": 163840, "torch_dtype": "bfloat16",
    "rope_scaling": {
        "type": "yarn", "factor": 40, "original_max_position_embeddings": 4096, "beta_fast": 32, "beta_slow": 1,
        "mscale": 1.0, "mscale_all_dim": 1.0,
    },
    "quantization_config": _FP8,
}  # fmt: skip
_KIMI_K2: dict[str, Any] = _V3 | {
    "model_type": "kimi_k2", "vocab_size": 163840, "first_k_dense_replace": 1, "n_routed_experts": 384, "n_group": 1,
    "topk_group": 1, "routed_scaling_factor": 2.827, "num_attention_heads": 64, "num_key_value_heads": 64,
    "num_nextn_predict_layers": 0, "rope_theta": 50000.0, "max_position_embeddings": 131072, "bos_token_id": 163584,
    "eos_token_id": 163585,
    "rope_scaling": {
        "type": "yarn", "factor": 32.0, "original_max_position_embeddings": 4096, "beta_fast": 1.0, "beta_slow": 1.0,
        "mscale": 1.0, "mscale_all_dim": 1.0,
    },
}  # fmt: skip
_MOONLIGHT: dict[str, Any] = {name: value for name, value in _V3.items() if name != "quantization_config"} | {
    "vocab_size": 163840, "hidden_size": 2048, "intermediate_size": 11264, "moe_intermediate_size": 1408,
    "num_hidden_layers": 27, "first_k_dense_replace": 1, "n_routed_experts": 64, "n_shared_experts": 2,
    "num_experts_per_tok": 6, "n_group": 1, "topk_group": 1, "routed_scaling_factor": 2.446, "num_attention_heads": 16,
    "num_key_value_heads": 16, "q_lora_rank": None, "num_nextn_predict_layers": 0, "rms_norm_eps": 1e-05,
    "rope_theta": 50000.0, "max_position_embeddings": 8192, "rope_scaling": None, "bos_token_id": 163584,
    "eos_token_id": 163585,
}  # fmt: skip


def _grouped(
    model_type: str, implementation: str, layers: int, hidden: int, heads: int, kv_heads: int, **more: Any
) -> dict[str, Any]:
    return {
        "architectures": [implementation], "model_type": model_type, "num_hidden_layers": layers,
        "hidden_size": hidden, "num_attention_heads": heads, "num_key_value_heads": kv_heads, "hidden_act": "silu",
        "rms_norm_eps": 1e-06, "rope_theta": 1000000, "tie_word_embeddings": False, "torch_dtype": "bfloat16", **more,
    }  # fmt: skip


def _qwen3(layers: int, hidden: int, heads: int, intermediate: int, *, tied: bool = False) -> dict[str, Any]:
    return _grouped(
        "qwen3", "Qwen3ForCausalLM", layers, hidden, heads, 8, head_dim=128, intermediate_size=intermediate,
        vocab_size=151936, max_position_embeddings=40960, tie_word_embeddings=tied, attention_bias=False,
        use_sliding_window=False, rope_scaling=None, bos_token_id=151643, eos_token_id=151645,
    )  # fmt: skip


def _qwen3_moe(layers: int, hidden: int, heads: int, expert_width: int) -> dict[str, Any]:
    return _grouped(
        "qwen3_moe", "Qwen3MoeForCausalLM", layers, hidden, heads, 4, head_dim=128, intermediate_size=3 * hidden,
        moe_intermediate_size=expert_width, num_experts=128, num_experts_per_tok=8, norm_topk_prob=True,
        decoder_sparse_step=1, mlp_only_layers=[], router_aux_loss_coef=0.001, vocab_size=151936,
        max_position_embeddings=40960, attention_bias=False, use_sliding_window=False, rope_scaling=None,
        bos_token_id=151643, eos_token_id=151645,
    )  # fmt: skip


def _qwen2_5(
    layers: int, hidden: int, heads: int, kv_heads: int, intermediate: int, *, tied: bool = False
) -> dict[str, Any]:
    return _grouped(
        "qwen2", "Qwen2ForCausalLM", layers, hidden, heads, kv_heads, intermediate_size=intermediate,
        vocab_size=151936 if tied else 152064, max_position_embeddings=32768, tie_word_embeddings=tied,
        use_sliding_window=False, bos_token_id=151643, eos_token_id=151643,
    )  # fmt: skip


def _llama3_1(layers: int, hidden: int, heads: int, intermediate: int) -> dict[str, Any]:
    return _grouped(
        "llama", "LlamaForCausalLM", layers, hidden, heads, 8, intermediate_size=intermediate, vocab_size=128256,
        max_position_embeddings=131072, rms_norm_eps=1e-05, rope_theta=500000.0, attention_bias=False, mlp_bias=False,
        bos_token_id=128000, eos_token_id=128001,
        rope_scaling={
            "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
    )  # fmt: skip


CONFIGS: dict[str, dict[str, Any]] = {
    "deepseek_v3_671b": _V3,
    "moonlight_16b_a3b": _MOONLIGHT,
    "kimi_k2": _KIMI_K2,
    "qwen3_30b_a3b": _qwen3_moe(48, 2048, 32, 768),
    "qwen3_235b_a22b": _qwen3_moe(94, 4096, 64, 1536),
    "qwen3_0_6b": _qwen3(28, 1024, 16, 3072, tied=True),
    "qwen3_1_7b": _qwen3(28, 2048, 16, 6144, tied=True),
    "qwen3_4b": _qwen3(36, 2560, 32, 9728, tied=True),
    "qwen3_8b": _qwen3(36, 4096, 32, 12288),
    "qwen3_14b": _qwen3(40, 5120, 40, 17408),
    "qwen3_32b": _qwen3(64, 5120, 64, 25600),
    "qwen2_5_0_5b": _qwen2_5(24, 896, 14, 2, 4864, tied=True),
    "qwen2_5_1_5b": _qwen2_5(28, 1536, 12, 2, 8960, tied=True),
    "qwen2_5_3b": _qwen2_5(36, 2048, 16, 2, 11008, tied=True),
    "qwen2_5_7b": _qwen2_5(28, 3584, 28, 4, 18944),
    "qwen2_5_14b": _qwen2_5(48, 5120, 40, 8, 13824),
    "qwen2_5_32b": _qwen2_5(64, 5120, 40, 8, 27648),
    "qwen2_5_72b": _qwen2_5(80, 8192, 64, 8, 29568),
    "llama3_1_8b": _llama3_1(32, 4096, 32, 14336),
    "llama3_1_70b": _llama3_1(80, 8192, 64, 28672),
}

KNOWN: dict[str, Architecture] = {name: describe(config) for name, config in CONFIGS.items()}
