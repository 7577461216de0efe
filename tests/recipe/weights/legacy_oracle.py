# SPDX-License-Identifier: Apache-2.0
"""What a legacy checkpoint should hold, worked out with whole tensors and torch's chunk and cat: the tests' oracle.

Written from the format's description (docs/WEIGHTS.md), not from the streaming planner.
"""

from __future__ import annotations

from typing import Any

import torch

from recipe.weights.legacy_options import LegacyOptions

Tensors = dict[str, torch.Tensor]


def expected(weights: Tensors, config: dict[str, Any], options: LegacyOptions) -> dict[str, Tensors]:
    """The `model` dictionary of every file, by the file's name below the checkpoint."""
    layers = config["num_hidden_layers"]
    dealt = options.layer_list or (layers // options.pipeline,) * options.pipeline
    numbers = iter(range(layers))
    files = {}
    for stage, count in enumerate(dealt):
        mine = [next(numbers) for _ in range(count)]
        for expert in range(options.expert):
            for tensor in range(options.tensor):
                name = f"mp_rank_{tensor:02d}"
                name += f"_{stage:03d}" if options.pipeline > 1 else ""
                name += f"_{expert:03d}" if options.expert > 1 else ""
                model = _Rank(weights, config, options, tensor, expert).model(mine, stage)
                files[f"iter_0000001/{name}/model_optim_rng.pt"] = model
    return files


class _Rank:
    def __init__(self, weights: Tensors, config: dict[str, Any], options: LegacyOptions, tensor: int, expert: int):
        self.weights, self.config, self.options = weights, config, options
        self.rank, self.expert = tensor, expert

    def part(self, tensor: torch.Tensor, axis: int) -> torch.Tensor:
        return torch.chunk(tensor, self.options.tensor, dim=axis)[self.rank]

    def model(self, layers: list[int], stage: int) -> Tensors:
        out: Tensors = {}
        if stage == 0:
            out["embedding.word_embeddings.weight"] = self.part(self.weights["model.embed_tokens.weight"], 0)
        for local, number in enumerate(layers):
            layer = self.layer(f"model.layers.{number}.", number < self.config["first_k_dense_replace"])
            out |= {f"decoder.layers.{local}.{name}": tensor for name, tensor in layer.items()}
        if stage == self.options.pipeline - 1:
            out["decoder.final_layernorm.weight"] = self.weights["model.norm.weight"]
            out["output_layer.weight"] = self.part(self.weights["lm_head.weight"], 0)
        return out

    def layer(self, at: str, dense: bool) -> Tensors:
        w, config = self.weights, self.config
        attention = at + "self_attn."
        out = {
            "input_layernorm.weight": w[at + "input_layernorm.weight"],
            "pre_mlp_layernorm.weight": w[at + "post_attention_layernorm.weight"],
            "self_attention.linear_qkv.weight": torch.cat(
                [w[attention + "q_a_proj.weight"], w[attention + "kv_a_proj_with_mqa.weight"]]
            ),
            "self_attention.linear_proj.weight": self.part(w[attention + "o_proj.weight"], 1),
            "self_attention.q_layernorm.weight": w[attention + "q_a_layernorm.weight"],
            "self_attention.k_layernorm.weight": w[attention + "kv_a_layernorm.weight"],
        }
        q, kv = w[attention + "q_b_proj.weight"], w[attention + "kv_b_proj.weight"]
        if self.options.mla_mm_split:
            heads, nope = config["num_attention_heads"], config["qk_nope_head_dim"]
            q, kv = q.reshape(heads, -1, q.shape[1]), kv.reshape(heads, -1, kv.shape[1])
            split = {"qk_nope": q[:, :nope], "qk_rope": q[:, nope:], "kv_nope": kv[:, :nope], "v": kv[:, nope:]}
            for name, tensor in split.items():
                out[f"self_attention.linear_{name}.weight"] = self.part(tensor.flatten(0, 1), 0)
        else:
            out["self_attention.linear_qb.weight"] = self.part(q, 0)
            out["self_attention.linear_kvb.weight"] = self.part(kv, 0)
        if self.options.mindspeed_llm == "2.2":
            later = {"k_layernorm": "kv_layernorm", "linear_qb": "linear_q_up_proj", "linear_kvb": "linear_kv_up_proj"}
            for old, new in later.items():
                for name in [name for name in out if f".{old}." in name]:
                    out[name.replace(old, new)] = out.pop(name)
        return out | (self.mlp(at + "mlp.", "mlp.") if dense else self.moe(at + "mlp."))

    def mlp(self, at: str, to: str) -> Tensors:
        gate, up = self.weights[at + "gate_proj.weight"], self.weights[at + "up_proj.weight"]
        return {
            to + "linear_fc1.weight": torch.cat([self.part(gate, 0), self.part(up, 0)]),
            to + "linear_fc2.weight": self.part(self.weights[at + "down_proj.weight"], 1),
        }

    def moe(self, at: str) -> Tensors:
        w, options = self.weights, self.options
        out = {
            "mlp.router.weight": w[at + "gate.weight"],
            "mlp.router.expert_bias": w[at + "gate.e_score_correction_bias"],
            **self.mlp(at + "shared_experts.", "mlp.shared_experts."),
        }
        everyone = torch.arange(self.config["n_routed_experts"])
        if options.tp_extend_ep:
            mine = everyone.reshape(options.expert, options.tensor, -1)[self.expert, self.rank].tolist()
        else:
            mine = everyone.reshape(options.expert, -1)[self.expert].tolist()
        if not options.grouped_gemm:
            for local, expert in enumerate(mine):
                out |= self.mlp(f"{at}experts.{expert}.", f"mlp.experts.local_experts.{local}.")
            return out
        first, second = [], []
        for expert in mine:
            gate, up, down = (w[f"{at}experts.{expert}.{name}_proj.weight"] for name in ("gate", "up", "down"))
            if not options.tp_extend_ep:
                gate, up, down = self.part(gate, 0), self.part(up, 0), self.part(down, 1)
            first.append(torch.cat([gate, up]).t())
            second.append(down.t())
        hidden = self.config["hidden_size"]
        out["mlp.experts.weight1"] = torch.stack(first).reshape(hidden, -1)
        out["mlp.experts.weight2"] = torch.stack(second).reshape(-1, hidden)
        return out
