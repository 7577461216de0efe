# SPDX-License-Identifier: Apache-2.0
"""The key map of models with grouped queries: each family's tensors, the groups of linear_qkv, and FP8 that ends within
a block."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from recipe.weights import grouped_query, mcore_to_hf, torch_dist
from recipe.weights.convert import convert
from recipe.weights.key_maps import droppable
from recipe.weights.layout import MegatronLayout

HIDDEN, HEAD, GROUPS, LAYERS = 150, 40, 3, 2
EXPERTS = {"num_experts": 3, "num_experts_per_tok": 2, "moe_intermediate_size": 130, "norm_topk_prob": True}


def config(model_type: str, **changes: Any) -> dict[str, Any]:
    return {
        "model_type": model_type, "vocab_size": 20, "hidden_size": HIDDEN, "intermediate_size": 140,
        "num_hidden_layers": LAYERS, "num_attention_heads": 2 * GROUPS, "num_key_value_heads": GROUPS,
        "head_dim": HEAD, "max_position_embeddings": 64, "tie_word_embeddings": False,
        **(EXPERTS if model_type == "qwen3_moe" else {}), **changes,
    }  # fmt: skip


def names(layout: MegatronLayout, layer: str) -> set[str]:
    return {place.hf_name.removeprefix(layer) for place in layout.places if place.hf_name.startswith(layer)}


def weights(settings: dict[str, Any]) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(4)
    shapes = {place.hf_name: place.hf_shape for place in grouped_query.layout(settings).places}
    return {name: torch.randn(shape, generator=generator).bfloat16() for name, shape in shapes.items()}


BIASES = {f"self_attn.{name}_proj.bias" for name in "qkv"}
NORMS = {f"self_attn.{name}_norm.weight" for name in "qk"}
ATTENTION = {
    *(f"self_attn.{name}_proj.weight" for name in "qkvo"), "input_layernorm.weight", "post_attention_layernorm.weight"
}  # fmt: skip
GATED = {f"{name}_proj.weight" for name in ("gate", "up", "down")}
MATRICES = ATTENTION | {f"mlp.{name}" for name in GATED}
ROUTED = ATTENTION | {"mlp.gate.weight", *(f"mlp.experts.{number}.{name}" for number in range(3) for name in GATED)}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (config("llama"), MATRICES),
        (config("qwen2"), MATRICES | BIASES),
        (config("qwen3"), MATRICES | NORMS),
        (config("qwen3_moe"), ROUTED | NORMS),
    ],
    ids=["llama", "qwen2", "qwen3", "qwen3_moe"],
)
def test_each_family_has_its_tensors(settings: dict[str, Any], expected: set[str]) -> None:
    layout = grouped_query.layout(settings)
    assert names(layout, "model.layers.1.") == expected
    # Every element of every Megatron tensor comes from exactly one place.
    for name in {place.names[0] for place in layout.places}:
        count = torch.zeros(next(place.shape for place in layout.places if place.names[0] == name))
        for place in layout.places:
            if place.names[0] == name:
                offsets, sizes = place.box(0, place.rows)
                count[tuple(slice(at, at + size) for at, size in zip(offsets, sizes, strict=True))] += 1
        assert (count == 1).all(), name


def test_experts_follow_layers_and_each_has_its_own_state() -> None:
    layout = grouped_query.layout(config("qwen3_moe"))
    places = {p.hf_name: p for p in layout.places}
    fc1 = "decoder.layers.mlp.experts.experts.linear_fc1.weight"
    up = places["model.layers.1.mlp.experts.2.up_proj.weight"]
    assert (up.names, up.shape, up.offsets) == ((fc1,), (LAYERS, 3, 260, HIDDEN), (1, 2, 130, 0))
    assert places["model.layers.1.mlp.gate.weight"].shape == (LAYERS, 3, HIDDEN)
    assert "decoder.layers.mlp.experts.experts.linear_fc2._extra_state/shard_1.2_2.3" in layout.extra_states


def test_queries_keys_and_values_by_groups() -> None:
    layout = grouped_query.layout(config("qwen2"))
    places = [p for p in layout.places if p.names == ("decoder.layers.self_attention.linear_qkv.weight",)]
    of_second_layer = sorted((p for p in places if p.offsets[0] == 1), key=lambda p: p.offsets)
    order = [(p.hf_name.split(".")[-2], p.first, p.rows) for p in of_second_layer]
    expected = [("q_proj", 0, 80), ("k_proj", 0, 40), ("v_proj", 0, 40)]
    assert order == [(name, first + group * rows, rows) for group in range(GROUPS) for name, first, rows in expected]


def test_what_is_left_behind_depends_on_the_model() -> None:
    names = ["lm_head.weight", "model.layers.2.eh_proj.weight", "model.layers.9.x", "a.rotary_emb.inv_freq"]
    assert droppable(names, config("qwen2")) == ("a.rotary_emb.inv_freq",)
    assert droppable(names, config("qwen2", tie_word_embeddings=True)) == ("a.rotary_emb.inv_freq", "lm_head.weight")
    # One prediction layer, as published; more only where config.json says so.
    assert droppable(names, config("deepseek_v3")) == ("a.rotary_emb.inv_freq", "model.layers.2.eh_proj.weight")
    assert "model.layers.9.x" in droppable(names, config("deepseek_v3", num_nextn_predict_layers=8))


@pytest.mark.parametrize("model_type", ["llama", "qwen2", "qwen3", "qwen3_moe"])
def test_fp8_whose_groups_end_within_blocks(model_type: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """240 and 120 rows in groups of 80 and 40, blocks of 128x128: there and back is the cast by definition."""
    monkeypatch.setattr(torch_dist, "PIECE_BYTES", 7000)
    settings = config(model_type, quantization_config={"quant_method": "fp8", "weight_block_size": [128, 128]})
    generator = torch.Generator().manual_seed(9)
    stored, expected = {}, {}
    for name, tensor in weights(settings).items():
        stored[name] = expected[name] = tensor
        if name.endswith("_proj.weight"):
            rows, columns = tensor.shape
            scale = torch.rand((-(-rows // 128), -(-columns // 128)), generator=generator)
            stored[name] = tensor.float().mul(30).to(torch.float8_e4m3fn)
            stored[name + "_scale_inv"] = scale
            each = scale.repeat_interleave(128, 0)[:rows].repeat_interleave(128, 1)[:, :columns]
            expected[name] = (stored[name].float() * each).to(torch.bfloat16)
    (tmp_path / "hf").mkdir()
    save_file(stored, tmp_path / "hf" / "model.safetensors")
    (tmp_path / "hf" / "config.json").write_text(json.dumps(settings))
    convert(tmp_path / "hf", tmp_path / "mcore")
    arguments = ["--load-dir", str(tmp_path / "mcore"), "--save-dir", str(tmp_path / "back")]
    assert mcore_to_hf.main([*arguments, "--hf-config", str(tmp_path / "hf")]) == 0
    tensors = load_file(tmp_path / "back" / "model-00001-of-00001.safetensors")
    assert tensors.keys() == expected.keys()
    assert all(torch.equal(tensors[name], tensor) for name, tensor in expected.items())
    assert "quantization_config" not in json.loads((tmp_path / "back" / "config.json").read_text())
