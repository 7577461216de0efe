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
from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM

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
    ("qwen3_moe", "ep2", "verl"),
    ("qwen3_moe", "tp2-pp2-ep2-uneven", "verl"),
    ("qwen3_moe", "tp2-pp2-ep2-uneven", "local"),
]
SAVES = [("deepseek_v3", "tp2-pp2-ep2-uneven"), ("qwen2", "tp2"), ("qwen3_moe", "tp2-pp2-ep2-uneven")]
SLOW_LOADS = [
    *(("deepseek_v3", name, "local-grouped") for name in LAYOUTS if name != "tp2-pp2-ep2-uneven"),
    *(("qwen2", name, "verl") for name in ("tp1-pp1-ep1", "pp2-uneven")),
    *(("qwen2", name, "local") for name in ("tp1-pp1-ep1", "tp2")),
    *(("qwen3_moe", name, spec) for name in ("tp2", "pp2-uneven") for spec in ("verl", "local")),
]
SLOW_SAVES = [
    *(("deepseek_v3", name) for name in LAYOUTS if name != "tp2-pp2-ep2-uneven"),
    *(("qwen2", name) for name in ("tp1-pp1-ep1", "pp2-uneven")),
    *(("qwen3_moe", name) for name in ("ep2", "pp2-uneven")),
]
GROUPED = {
    "vocab_size": 64, "hidden_size": 48, "intermediate_size": 40, "num_hidden_layers": 4, "num_attention_heads": 6,
    "num_key_value_heads": 2, "max_position_embeddings": 64,
}  # fmt: skip


def made(directory: Path, model: Any) -> SimpleNamespace:
    """The model with noise everywhere, and its tensors in bf16, beside the converted checkpoint."""
    model = model.to(torch.bfloat16)
    generator = torch.Generator().manual_seed(3)
    for tensor in model.state_dict().values():
        tensor.copy_(torch.randn(tensor.shape, generator=generator))
    model.save_pretrained(directory / "hf")
    convert(directory / "hf", directory / "mcore")
    fields = {"hf": str(directory / "hf"), "checkpoint": str(directory / "mcore")}
    source = model.state_dict()
    if model.config.tie_word_embeddings:
        del source["lm_head.weight"]
    return SimpleNamespace(fields=fields, source=source, whole=whole_grouped(source))


@pytest.fixture(scope="module")
def qwen2(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A Qwen2 with grouped queries and tied embeddings."""
    model = Qwen2ForCausalLM(Qwen2Config(**GROUPED, tie_word_embeddings=True))
    return made(tmp_path_factory.mktemp("qwen2"), model)


@pytest.fixture(scope="module")
def qwen3_moe(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A Qwen3-MoE of 4 experts, with norms of queries and keys, whose heads are wider than the hidden state."""
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "norm_topk_prob": True}
    model = Qwen3MoeForCausalLM(Qwen3MoeConfig(**GROUPED, **experts, head_dim=12, tie_word_embeddings=False))
    return made(tmp_path_factory.mktemp("qwen3_moe"), model)


def whole_grouped(source: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Every Megatron tensor made from the Hugging Face one, written down independently of the converter; a norm that
    has two names under both."""
    layers = [f"model.layers.{n}." for n in range(4)]

    def stack(name: str) -> torch.Tensor:
        return torch.stack([source[at + name] for at in layers])

    def qkv(at: str, kind: str) -> torch.Tensor:
        # 2 groups of 3 query heads, each with one key and one value head.
        q, k, v = (source[f"{at}self_attn.{n}_proj.{kind}"].unflatten(0, (2, -1)) for n in "qkv")
        return torch.cat([q, k, v], dim=1).flatten(0, 1)

    def gate_up(at: str) -> torch.Tensor:
        return torch.cat([source[at + "gate_proj.weight"], source[at + "up_proj.weight"]])

    to = "decoder.layers."
    whole = {
        "embedding.word_embeddings.weight": source["model.embed_tokens.weight"],
        "decoder.final_layernorm.weight": source["model.norm.weight"],
        to + "self_attention.linear_qkv.layer_norm_weight": stack("input_layernorm.weight"),
        to + "input_layernorm.weight": stack("input_layernorm.weight"),
        to + "self_attention.linear_qkv.weight": torch.stack([qkv(at, "weight") for at in layers]),
        to + "self_attention.linear_proj.weight": stack("self_attn.o_proj.weight"),
        to + "pre_mlp_layernorm.weight": stack("post_attention_layernorm.weight"),
        to + "mlp.linear_fc1.layer_norm_weight": stack("post_attention_layernorm.weight"),
    }
    if "lm_head.weight" in source:
        whole["output_layer.weight"] = source["lm_head.weight"]
    if "model.layers.0.self_attn.q_proj.bias" in source:
        whole[to + "self_attention.linear_qkv.bias"] = torch.stack([qkv(at, "bias") for at in layers])
    for name in "qk":
        if f"model.layers.0.self_attn.{name}_norm.weight" in source:
            whole[f"{to}self_attention.{name}_layernorm.weight"] = stack(f"self_attn.{name}_norm.weight")
    if "model.layers.0.mlp.gate.weight" not in source:
        return whole | {
            to + "mlp.linear_fc1.weight": torch.stack([gate_up(at + "mlp.") for at in layers]),
            to + "mlp.linear_fc2.weight": stack("mlp.down_proj.weight"),
        }
    experts = [[f"{at}mlp.experts.{e}." for e in range(4)] for at in layers]
    down = [torch.stack([source[name + "down_proj.weight"] for name in each]) for each in experts]
    return whole | {
        to + "mlp.router.weight": stack("mlp.gate.weight"),
        to + "mlp.experts.experts.linear_fc1.weight": torch.stack(
            [torch.stack([gate_up(name) for name in each]) for each in experts]
        ),
        to + "mlp.experts.experts.linear_fc2.weight": torch.stack(down),
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
def models(tiny: Any, qwen2: SimpleNamespace, qwen3_moe: SimpleNamespace) -> dict[str, Any]:
    return {"deepseek_v3": tiny, "qwen2": qwen2, "qwen3_moe": qwen3_moe}


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


NORMS_OF_HEADS = {f"decoder.layers.self_attention.{name}_layernorm.weight" for name in "qk"}


def alternatives(whole: dict[str, torch.Tensor]) -> set[str]:
    """Norms have two names, of which a model asks for one."""
    return {name for name in whole if "layernorm" in name or "layer_norm" in name} - {"decoder.final_layernorm.weight"}


def check_load(case: tuple[str, str, str], models: dict[str, Any], four: Four) -> None:
    ranks = four.pieces[case]
    if case[0] != "deepseek_v3":
        grouped = models[case[0]].whole
        return check_every_element(grouped, ranks, alternatives(grouped) - NORMS_OF_HEADS)
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
    model = models[case[0]]
    source = in_bfloat16(model.model.state_dict()) if case[0] == "deepseek_v3" else model.source
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
