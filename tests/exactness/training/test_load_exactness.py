# SPDX-License-Identifier: Apache-2.0
"""One converted checkpoint loads into real Megatron-core models in every layout, every element of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import Qwen2Config, Qwen2ForCausalLM

from recipe.weights import mcore_to_hf
from recipe.weights.convert import convert

Results = list[list[dict[str, Any]]]
LAYOUTS = {
    "tp1-pp1-ep1": {},
    "tp2": {"tp": 2},
    "pp2-uneven": {"pp": 2, "first": 1},
    "ep2": {"ep": 2},
    "tp2-pp2-ep2-uneven": {"tp": 2, "pp": 2, "ep": 2, "first": 3},
}
# verl: grouped experts and fused norms; local: Megatron-core's own layers; local-grouped: its transposed experts.
LOADS = [
    *(("deepseek_v3", name, spec) for name in LAYOUTS for spec in ("verl", "local")),
    ("deepseek_v3", "tp2-pp2-ep2-uneven", "local-grouped"),
    ("qwen2", "tp2", "verl"),
    ("qwen2", "pp2-uneven", "local"),
]
SAVES = [("deepseek_v3", "tp2-pp2-ep2-uneven"), ("qwen2", "tp2")]
SLOW_LOADS = [
    *(("deepseek_v3", name, "local-grouped") for name in LAYOUTS if name != "tp2-pp2-ep2-uneven"),
    *(("qwen2", name, "verl") for name in ("tp1-pp1-ep1", "pp2-uneven")),
    *(("qwen2", name, "local") for name in ("tp1-pp1-ep1", "tp2")),
]
SLOW_SAVES = [
    *(("deepseek_v3", name) for name in LAYOUTS if name != "tp2-pp2-ep2-uneven"),
    *(("qwen2", name) for name in ("tp1-pp1-ep1", "pp2-uneven")),
]


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
    del source["lm_head.weight"]
    return SimpleNamespace(fields=fields, source=source, whole=whole_qwen2(source))


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


def check_every_element(whole: dict[str, torch.Tensor], ranks: list[list[Any]], optional: set[str]) -> None:
    """All pieces of all ranks equal the whole tensors bit for bit, and nothing but the optional names is left out."""
    left = {name: torch.ones(tensor.shape, dtype=torch.bool) for name, tensor in whole.items()}
    for rank in ranks:
        for name, offsets, piece in rank:
            # A layer's or an expert's piece lacks the axis of which it is one element.
            shape = (1,) * (len(offsets) - piece.dim()) + tuple(piece.shape)
            place = tuple(slice(at, at + size) for at, size in zip(offsets, shape, strict=True))
            assert piece.dtype == whole[name].dtype, name
            assert torch.equal(piece.reshape(shape), whole[name][place]), f"{name} at {offsets}"
            left[name][place] = False
    assert {name for name, mask in left.items() if mask.any()} <= optional
    assert not any(mask.any() != mask.all() for mask in left.values())


class Four:
    """What four processes have loaded: pieces[model, layout, spec][rank]; saved: saved[model, layout] is where; and
    would give the rollout: resharded[rank], in the last of the layouts."""

    def __init__(
        self, run_job: Any, models: dict[str, Any], loads: list[Any], saves: list[Any], directory: Path
    ) -> None:
        self.saved = {(model, name): directory / f"{model}-{name}" for model, name in saves}
        tasks: list[dict[str, Any]] = [
            {"task": "elements", "layout": LAYOUTS[name], "spec": spec, "dtype": "bfloat16", **models[model].fields}
            for model, name, spec in loads
        ]
        for (model, name), where in self.saved.items():
            contents = ["model", "optimizer", "extra"]
            if (model, name) == ("deepseek_v3", "tp2"):
                # Megatron-core 0.12.1 takes the optimizer's state of experts that tensor parallelism repeats for two.
                contents.remove("optimizer")
            what = {"task": "store", "directory": str(where), "contents": contents}
            tasks.append({**what, "layout": LAYOUTS[name], "dtype": "bfloat16", **models[model].fields})
        across = {"task": "reshard", "layout": LAYOUTS["tp2-pp2-ep2-uneven"], "dtype": "bfloat16"}
        results = run_job(models["deepseek_v3"], [*tasks, across], device="npu", world=4, limit=600)
        self.resharded = [rank[-1]["tensors"] for rank in results]
        self.pieces = {key: [rank[task]["pieces"] for rank in results] for task, key in enumerate(loads)}


@pytest.fixture(scope="module")
def models(tiny: Any, qwen2: SimpleNamespace) -> dict[str, Any]:
    return {"deepseek_v3": tiny, "qwen2": qwen2}


@pytest.fixture(scope="module")
def fast(models: dict[str, Any], run_job: Callable[..., Results], tmp_path_factory: pytest.TempPathFactory) -> Four:
    return Four(run_job, models, LOADS, SAVES, tmp_path_factory.mktemp("saved"))


@pytest.fixture(scope="module")
def slow(models: dict[str, Any], run_job: Callable[..., Results], tmp_path_factory: pytest.TempPathFactory) -> Four:
    return Four(run_job, models, SLOW_LOADS, SLOW_SAVES, tmp_path_factory.mktemp("saved"))


def in_bfloat16(source: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {
        name: tensor if name.endswith("correction_bias") else tensor.to(torch.bfloat16)
        for name, tensor in source.items()
    }


def alternatives(whole: dict[str, torch.Tensor]) -> set[str]:
    """Norms have two names, of which a model asks for one."""
    return {name for name in whole if "layernorm" in name or "layer_norm" in name} - {"decoder.final_layernorm.weight"}


def check_load(case: tuple[str, str, str], models: dict[str, Any], four: Four) -> None:
    ranks = four.pieces[case]
    if case[0] == "qwen2":
        return check_every_element(models["qwen2"].whole, ranks, set())
    whole = whole_deepseek(in_bfloat16(models["deepseek_v3"].model.state_dict()), layers=4, experts=8)
    check_every_element(whole, ranks, alternatives(whole))
    biases = [piece for rank in ranks for key, _, piece in rank if key.endswith("expert_bias")]
    assert biases and all(piece.dtype == torch.float32 for piece in biases)
    assert any((piece != piece.bfloat16().float()).any() for piece in biases)


@pytest.mark.parametrize("case", LOADS, ids="-".join)
def test_every_element_is_loaded(case: tuple[str, str, str], models: dict[str, Any], fast: Four) -> None:
    check_load(case, models, fast)


@pytest.mark.slow
@pytest.mark.parametrize("case", SLOW_LOADS, ids="-".join)
def test_every_element_is_loaded_elsewhere(case: tuple[str, str, str], models: dict[str, Any], slow: Four) -> None:
    check_load(case, models, slow)


def tensors(output: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in output.glob("*.safetensors") for name, tensor in load_file(file).items()}


def test_the_rollout_is_given_what_was_loaded(models: dict[str, Any], fast: Four) -> None:
    """On every rank, all of it, and the router's bias still in float32."""
    source = in_bfloat16(models["deepseek_v3"].model.state_dict())
    for found in fast.resharded:
        assert found.keys() == source.keys()
        for name, tensor in source.items():
            assert found[name].dtype == tensor.dtype, name
            assert torch.equal(found[name], tensor), name


def check_way_back(case: tuple[str, str], models: dict[str, Any], four: Four, output: Path) -> None:
    """Whatever the layout that saved it, with the optimizer in the same checkpoint: the tensors that were loaded."""
    assert mcore_to_hf.main(["--load-dir", str(four.saved[case]), "--save-dir", str(output)]) == 0
    qwen2 = models["qwen2"].source
    source = qwen2 if case[0] == "qwen2" else in_bfloat16(models["deepseek_v3"].model.state_dict())
    found = tensors(output)
    assert found.keys() == source.keys()
    assert all(found[key].dtype == source[key].dtype and torch.equal(found[key], source[key]) for key in source)
    assert json.loads((output / "config.json").read_text())["model_type"] == case[0]


@pytest.mark.parametrize("case", SAVES, ids="-".join)
def test_what_verl_saves_goes_back(case: tuple[str, str], models: dict[str, Any], fast: Four, tmp_path: Path) -> None:
    check_way_back(case, models, fast, tmp_path / "hf")


@pytest.mark.slow
@pytest.mark.parametrize("case", SLOW_SAVES, ids="-".join)
def test_what_verl_saves_elsewhere_goes_back(
    case: tuple[str, str], models: dict[str, Any], slow: Four, tmp_path: Path
) -> None:
    check_way_back(case, models, slow, tmp_path / "hf")
