# SPDX-License-Identifier: Apache-2.0
"""One converted checkpoint loads into real Megatron-core models in every layout, every element of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from recipe.weights.convert import convert

Results = list[list[dict[str, Any]]]
LAYOUTS = {
    "tp1-pp1-ep1": {},
    "tp2": {"tp": 2},
    "pp2-uneven": {"pp": 2, "first": 1},
    "ep2": {"ep": 2},
    "tp2-pp2-ep2-uneven": {"tp": 2, "pp": 2, "ep": 2, "first": 3},
}
DENSE_LAYOUTS = {name: layout for name, layout in LAYOUTS.items() if "ep" not in layout}
# verl: grouped experts and fused norms; local: Megatron-core's own layers; local-grouped: its transposed experts.
SPECS = ("verl", "local", "local-grouped")


def make_qwen2(directory: Path) -> dict[str, torch.Tensor]:
    """A Qwen2 with grouped queries, tied embeddings and noise everywhere; returns its tensors in bf16."""
    config = Qwen2Config(
        vocab_size=64, hidden_size=48, intermediate_size=40, num_hidden_layers=4, num_attention_heads=6,
        num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=True,
    )  # fmt: skip
    model = Qwen2ForCausalLM(config).to(torch.bfloat16)
    generator = torch.Generator().manual_seed(3)
    for tensor in model.state_dict().values():
        tensor.copy_(torch.randn(tensor.shape, generator=generator))
    model.save_pretrained(directory)
    return model.state_dict()


@pytest.fixture(scope="module")
def qwen2(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    directory = tmp_path_factory.mktemp("qwen2")
    source = make_qwen2(directory / "hf")
    convert(directory / "hf", directory / "mcore")
    fields = {"hf": str(directory / "hf"), "checkpoint": str(directory / "mcore")}
    return SimpleNamespace(fields=fields, whole=whole_qwen2(source))


def whole_qwen2(source: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Every Megatron tensor made from the Hugging Face one, written down independently of the converter."""
    layers = [f"model.layers.{n}." for n in range(4)]

    def stack(name: str) -> torch.Tensor:
        return torch.stack([source[at + name] for at in layers])

    def qkv(at: str, kind: str) -> torch.Tensor:
        # 2 groups of 3 query heads of 8 rows, each with one key and one value head.
        q, k, v = (source[f"{at}self_attn.{n}_proj.{kind}"].unflatten(0, (2, -1)) for n in "qkv")
        return torch.cat([q, k, v], dim=1).flatten(0, 1)

    def gate_up(at: str) -> torch.Tensor:
        return torch.cat([source[at + "mlp.gate_proj.weight"], source[at + "mlp.up_proj.weight"]])

    to = "decoder.layers."
    return {
        "embedding.word_embeddings.weight": source["model.embed_tokens.weight"],
        "decoder.final_layernorm.weight": source["model.norm.weight"],
        to + "self_attention.linear_qkv.layer_norm_weight": stack("input_layernorm.weight"),
        to + "self_attention.linear_qkv.weight": torch.stack([qkv(at, "weight") for at in layers]),
        to + "self_attention.linear_qkv.bias": torch.stack([qkv(at, "bias") for at in layers]),
        to + "self_attention.linear_proj.weight": stack("self_attn.o_proj.weight"),
        to + "mlp.linear_fc1.layer_norm_weight": stack("post_attention_layernorm.weight"),
        to + "mlp.linear_fc1.weight": torch.stack([gate_up(at) for at in layers]),
        to + "mlp.linear_fc2.weight": stack("mlp.down_proj.weight"),
    }


def whole_deepseek(source: dict[str, torch.Tensor], layers: int, experts: int) -> dict[str, torch.Tensor]:
    """The same for DeepSeek-V3, with a norm under each of the names that a specification of layers may ask for."""
    whole = {
        "embedding.word_embeddings.weight": source["model.embed_tokens.weight"],
        "output_layer.weight": source["lm_head.weight"],
        "decoder.final_layernorm.weight": source["model.norm.weight"],
    }

    def gate_up(prefix: str) -> torch.Tensor:
        return torch.cat([source[prefix + "gate_proj.weight"], source[prefix + "up_proj.weight"]])

    for n in range(layers):
        hf, mc = f"model.layers.{n}.", f"decoder.layers.{n}."
        for ours, theirs in {
            "input_layernorm.weight": "input_layernorm.weight",
            "self_attention.linear_q_down_proj.weight": "self_attn.q_a_proj.weight",
            "self_attention.linear_q_up_proj.layer_norm_weight": "self_attn.q_a_layernorm.weight",
            "self_attention.q_layernorm.weight": "self_attn.q_a_layernorm.weight",
            "self_attention.linear_q_up_proj.weight": "self_attn.q_b_proj.weight",
            "self_attention.linear_kv_down_proj.weight": "self_attn.kv_a_proj_with_mqa.weight",
            "self_attention.linear_kv_up_proj.layer_norm_weight": "self_attn.kv_a_layernorm.weight",
            "self_attention.kv_layernorm.weight": "self_attn.kv_a_layernorm.weight",
            "self_attention.linear_kv_up_proj.weight": "self_attn.kv_b_proj.weight",
            "self_attention.linear_proj.weight": "self_attn.o_proj.weight",
            "pre_mlp_layernorm.weight": "post_attention_layernorm.weight",
            "mlp.linear_fc1.layer_norm_weight": "post_attention_layernorm.weight",
        }.items():
            whole[mc + ours] = source[hf + theirs]
        plain = "mlp." if n == 0 else "mlp.shared_experts."
        whole[mc + plain + "linear_fc1.weight"] = gate_up(hf + plain)
        whole[mc + plain + "linear_fc2.weight"] = source[hf + plain + "down_proj.weight"]
        if n == 0:
            continue
        whole[mc + "mlp.router.weight"] = source[hf + "mlp.gate.weight"]
        whole[mc + "mlp.router.expert_bias"] = source[hf + "mlp.gate.e_score_correction_bias"]
        each = [f"{hf}mlp.experts.{e}." for e in range(experts)]
        whole[mc + "mlp.experts.experts.linear_fc1.weight"] = torch.stack([gate_up(name) for name in each])
        down = torch.stack([source[name + "down_proj.weight"] for name in each])
        whole[mc + "mlp.experts.experts.linear_fc2.weight"] = down
    return whole


def check_every_element(whole: dict[str, torch.Tensor], ranks: list[dict[str, Any]], optional: set[str]) -> None:
    """All pieces of all ranks equal the whole tensors bit for bit, and nothing but the optional names is left out."""
    left = {name: torch.ones(tensor.shape, dtype=torch.bool) for name, tensor in whole.items()}
    for rank in ranks:
        for name, offsets, piece in rank["pieces"]:
            # A layer's or an expert's piece lacks the axis of which it is one element.
            shape = (1,) * (len(offsets) - piece.dim()) + tuple(piece.shape)
            place = tuple(slice(at, at + size) for at, size in zip(offsets, shape, strict=True))
            assert piece.dtype == whole[name].dtype, name
            assert torch.equal(piece.reshape(shape), whole[name][place]), f"{name} at {offsets}"
            left[name][place] = False
    assert {name for name, mask in left.items() if mask.any()} <= optional
    assert not any(mask.any() != mask.all() for mask in left.values())


@pytest.fixture(scope="module")
def four(tiny: Any, qwen2: SimpleNamespace, run_job: Callable[..., Results]) -> dict[tuple[str, str, str], Any]:
    """What four processes hold after loading: (model, layout, spec) -> the results of the ranks."""
    wanted = [
        *((("deepseek_v3", name, spec), {}) for name in LAYOUTS for spec in SPECS),
        *((("qwen2", name, spec), qwen2.fields) for name in DENSE_LAYOUTS for spec in SPECS[:2]),
    ]
    tasks = [
        {"task": "elements", "layout": LAYOUTS[name], "spec": spec, "dtype": "bfloat16", **fields}
        for (_, name, spec), fields in wanted
    ]
    results = run_job(tiny, tasks, device="npu", world=4)
    return {key: [rank[task] for rank in results] for task, (key, _) in enumerate(wanted)}


def alternatives(whole: dict[str, torch.Tensor]) -> set[str]:
    """Norms have two names, of which a model asks for one."""
    return {name for name in whole if "layernorm" in name or "layer_norm" in name} - {"decoder.final_layernorm.weight"}


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("name", LAYOUTS)
def test_deepseek_v3(name: str, spec: str, tiny: Any, four: dict[tuple[str, str, str], Any]) -> None:
    source = {
        name: tensor if name.endswith("correction_bias") else tensor.to(torch.bfloat16)
        for name, tensor in tiny.model.state_dict().items()
    }
    whole = whole_deepseek(source, layers=4, experts=8)
    ranks = four["deepseek_v3", name, spec]
    check_every_element(whole, ranks, alternatives(whole))
    biases = [piece for rank in ranks for key, _, piece in rank["pieces"] if key.endswith("expert_bias")]
    assert biases and all(piece.dtype == torch.float32 for piece in biases)
    assert any((piece != piece.bfloat16().float()).any() for piece in biases)


@pytest.mark.parametrize("spec", SPECS[:2])
@pytest.mark.parametrize("name", DENSE_LAYOUTS)
def test_qwen2(name: str, spec: str, qwen2: SimpleNamespace, four: dict[tuple[str, str, str], Any]) -> None:
    check_every_element(qwen2.whole, four["qwen2", name, spec], set())
    assert not any(math.isnan(float(tensor.float().sum())) for tensor in qwen2.whole.values())
