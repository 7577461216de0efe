# SPDX-License-Identifier: Apache-2.0
"""A DeepSeek-V3 checkpoint small enough to write in every test, with every kind of tensor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

CONFIG: dict[str, Any] = {
    "architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", "vocab_size": 24, "hidden_size": 8,
    "intermediate_size": 12, "moe_intermediate_size": 4, "num_hidden_layers": 2, "num_attention_heads": 2,
    "n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1,
    "first_k_dense_replace": 1, "q_lora_rank": 6, "kv_lora_rank": 4, "qk_nope_head_dim": 3, "qk_rope_head_dim": 2,
    "v_head_dim": 5, "max_position_embeddings": 64, "tie_word_embeddings": False, "num_nextn_predict_layers": 0,
}  # fmt: skip


class HuggingFace:
    """Makes the checkpoint's tensors and files."""

    def tensors(self, dtype: torch.dtype) -> dict[str, torch.Tensor]:
        """Random weights under Hugging Face's names; the router bias is float32 as in the published checkpoint."""
        generator = torch.Generator().manual_seed(5)

        def new(*shape: int, kind: torch.dtype = dtype) -> torch.Tensor:
            return torch.randn(shape, generator=generator).to(kind)

        out = {"model.embed_tokens.weight": new(24, 8), "model.norm.weight": new(8), "lm_head.weight": new(24, 8)}
        for n in range(2):
            at = f"model.layers.{n}."
            out |= {
                at + "input_layernorm.weight": new(8),
                at + "post_attention_layernorm.weight": new(8),
                at + "self_attn.q_a_proj.weight": new(6, 8),
                at + "self_attn.q_a_layernorm.weight": new(6),
                at + "self_attn.q_b_proj.weight": new(10, 6),
                at + "self_attn.kv_a_proj_with_mqa.weight": new(6, 8),
                at + "self_attn.kv_a_layernorm.weight": new(4),
                at + "self_attn.kv_b_proj.weight": new(16, 4),
                at + "self_attn.o_proj.weight": new(8, 10),
            }
            blocks = (
                {"mlp.": 12} if n == 0 else {"mlp.shared_experts.": 4, **{f"mlp.experts.{e}.": 4 for e in range(4)}}
            )
            for name, size in blocks.items():
                out |= {
                    at + name + "gate_proj.weight": new(size, 8),
                    at + name + "up_proj.weight": new(size, 8),
                    at + name + "down_proj.weight": new(8, size),
                }
        out["model.layers.1.mlp.gate.weight"] = new(4, 8)
        out["model.layers.1.mlp.gate.e_score_correction_bias"] = new(4, kind=torch.float32)
        return out

    def write(self, directory: Path, weights: dict[str, torch.Tensor], shards: int = 2, **config: Any) -> None:
        """A Hugging Face directory with an index (or, for one shard, without)."""
        directory.mkdir()
        (directory / "config.json").write_text(json.dumps({**CONFIG, **config}))
        names = sorted(weights)
        if shards == 1:
            save_file(weights, directory / "model.safetensors")
            return
        weight_map = {}
        for i in range(shards):
            file = f"model-{i + 1:05d}-of-{shards:05d}.safetensors"
            part = {name: weights[name] for name in names[i::shards]}
            save_file(part, directory / file)
            weight_map |= dict.fromkeys(part, file)
        (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


@pytest.fixture
def hf() -> HuggingFace:
    return HuggingFace()


@pytest.fixture(params=["bf16", "f32"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return {"bf16": torch.bfloat16, "f32": torch.float32}[request.param]


@pytest.fixture
def source(hf: HuggingFace, tmp_path: Path) -> Path:
    hf.write(tmp_path / "hf", hf.tensors(torch.bfloat16))
    return tmp_path / "hf"
