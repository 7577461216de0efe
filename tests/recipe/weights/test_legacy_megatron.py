# SPDX-License-Identifier: Apache-2.0
"""Megatron-core's own modules take the tensors of each rank's file and say where they belong in the whole model.

That is what the legacy layout shares with Megatron-core 0.12.1: grouped and sequential experts, MLPs, the embedding,
and the linears of attention as they are cut, each module built as on its rank. MindSpeed-LLM's own attention module,
whose names the layout has, is not here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from megatron.core import parallel_state
from megatron.core.dist_checkpointing.mapping import ShardedTensor, ShardedTensorFactory
from megatron.core.tensor_parallel import layers
from megatron.core.transformer import TransformerConfig
from megatron.core.transformer.mlp import MLP, MLPSubmodules
from megatron.core.transformer.moe import experts

from recipe.weights.legacy_options import LegacyOptions
from tests.recipe.weights.test_legacy import CONFIG, convert, random_weights, write

MOE = {**CONFIG, "first_k_dense_replace": 0, "num_hidden_layers": 1}
DENSE = {**CONFIG, "first_k_dense_replace": 1, "num_hidden_layers": 1}
HF, MG = "model.layers.0.", "decoder.layers.0."
Tensors = dict[str, torch.Tensor]


@dataclass
class Place:
    """The rank that Megatron-core is to take itself for."""

    tensor: int = 0
    tensors: int = 1
    expert: int = 0
    experts: int = 1


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Place:
    """Megatron-core's parallel state without a process group."""
    place = Place()
    answers: dict[str, Callable[[], Any]] = {
        "get_tensor_model_parallel_rank": lambda: place.tensor,
        "get_tensor_model_parallel_world_size": lambda: place.tensors,
        "get_expert_tensor_parallel_rank": lambda: place.tensor,
        "get_expert_tensor_parallel_world_size": lambda: place.tensors,
        "get_expert_tensor_parallel_group": lambda check_initialized=True: None,
        "get_expert_model_parallel_rank": lambda: place.expert,
        "get_expert_model_parallel_world_size": lambda: place.experts,
        "get_expert_data_parallel_rank": lambda: 0,
        "get_data_parallel_rank": lambda **kinds: 0,
        "get_data_parallel_world_size": lambda **kinds: 1,
    }
    for name, answer in answers.items():
        for module in (parallel_state, layers):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, answer)
    # Only its multiplication is missing here, which nobody asks for.
    monkeypatch.setattr(experts.gg, "assert_grouped_gemm_is_available", lambda: None)
    return place


def settings(config: dict[str, Any], place: Place) -> TransformerConfig:
    return TransformerConfig(
        num_layers=1, hidden_size=config["hidden_size"], num_attention_heads=config["num_attention_heads"],
        ffn_hidden_size=config["intermediate_size"], num_moe_experts=config["n_routed_experts"],
        moe_ffn_hidden_size=config["moe_intermediate_size"], gated_linear_unit=True, add_bias_linear=False,
        activation_func=torch.nn.functional.silu, use_cpu_initialization=True, perform_initialization=False,
        params_dtype=torch.bfloat16, expert_model_parallel_size=place.experts, moe_grouped_gemm=True,
    )  # fmt: skip


def ranks(output: Path, options: LegacyOptions, place: Place) -> Iterator[Tensors]:
    """The model of each rank's file, Megatron-core taking itself for that rank."""
    for expert in range(options.expert):
        for tensor in range(options.tensor):
            name = f"mp_rank_{tensor:02d}" + (f"_{expert:03d}" if options.expert > 1 else "")
            place.tensor, place.tensors, place.expert, place.experts = tensor, options.tensor, expert, options.expert
            if options.tp_extend_ep:
                # What MindSpeed makes of the groups, as far as the experts can see.
                place.tensor, place.tensors = 0, 1
                place.expert, place.experts = expert * options.tensor + tensor, options.expert * options.tensor
            yield torch.load(output / "iter_0000001" / name / "model_optim_rng.pt", weights_only=True)["model"]


def load(module: torch.nn.Module, model: Tensors, prefix: str, tensors: Tensors) -> None:
    """Load the tensors below a prefix, and put each where the module's sharded state says that it belongs."""
    state = {name.removeprefix(prefix): tensor for name, tensor in model.items() if name.startswith(prefix)}
    missing = module.load_state_dict(state, strict=False)
    assert not missing.unexpected_keys
    assert all(name.endswith("_extra_state") for name in missing.missing_keys)
    pending: list[Any] = list(module.sharded_state_dict().values())  # type: ignore[operator]
    while pending:
        item = pending.pop()
        if isinstance(item, ShardedTensorFactory):
            built = item.build()
            pending.extend(built if isinstance(built, list) else [built])
        elif isinstance(item, ShardedTensor):
            empty = torch.full(item.global_shape, torch.nan, dtype=item.dtype)
            sizes = (1,) * item.prepend_axis_num + item.local_shape
            box = tuple(slice(at, at + size) for at, size in zip(item.global_offset, sizes, strict=True))
            tensors.setdefault(item.key, empty)[box] = item.data.reshape(sizes)


def gate_up(weights: Tensors, at: str) -> torch.Tensor:
    return torch.cat([weights[at + "gate_proj.weight"], weights[at + "up_proj.weight"]])


def converted(config: dict[str, Any], options: LegacyOptions, directory: Path) -> Tensors:
    weights = random_weights(config, torch.bfloat16)
    convert(write(directory / "hf", weights, config), directory / "out", options)
    return weights


@pytest.mark.parametrize(
    "options",
    [
        LegacyOptions(grouped_gemm=True),
        LegacyOptions(expert=4, grouped_gemm=True),
        LegacyOptions(tensor=2, expert=2, grouped_gemm=True),
        LegacyOptions(tensor=4, grouped_gemm=True),
        LegacyOptions(tensor=2, expert=2, grouped_gemm=True, tp_extend_ep=True),
    ],
    ids=["one rank", "expert", "sliced", "tensor", "dealt"],
)
def test_grouped_experts(options: LegacyOptions, place: Place, tmp_path: Path) -> None:
    weights = converted(MOE, options, tmp_path)
    tensors: Tensors = {}
    for model in ranks(tmp_path / "out", options, place):
        module = experts.GroupedMLP(MOE["n_routed_experts"] // place.experts, settings(MOE, place))
        load(module, model, MG + "mlp.experts.", tensors)
    at = [f"{HF}mlp.experts.{expert}." for expert in range(MOE["n_routed_experts"])]
    fc1, fc2 = tensors["experts.linear_fc1.weight"], tensors["experts.linear_fc2.weight"]
    assert torch.equal(fc1, torch.stack([gate_up(weights, name) for name in at]))
    assert torch.equal(fc2, torch.stack([weights[name + "down_proj.weight"] for name in at]))


@pytest.mark.parametrize("tensor", [1, 2, 4])
@pytest.mark.parametrize("kind", ["mlp", "shared_experts", "local expert"])
def test_gated_mlps(kind: str, tensor: int, place: Place, tmp_path: Path) -> None:
    config = DENSE if kind == "mlp" else MOE
    options = LegacyOptions(tensor=tensor)
    weights = converted(config, options, tmp_path)
    hf, mg, width = {
        "mlp": ("mlp.", "mlp.", config["intermediate_size"]),
        "shared_experts": ("mlp.shared_experts.", "mlp.shared_experts.", config["moe_intermediate_size"]),
        "local expert": ("mlp.experts.5.", "mlp.experts.local_experts.5.", config["moe_intermediate_size"]),
    }[kind]
    tensors: Tensors = {}
    for model in ranks(tmp_path / "out", options, place):
        made = settings(config, place)
        made.ffn_hidden_size = width
        parts = MLPSubmodules(linear_fc1=layers.ColumnParallelLinear, linear_fc2=layers.RowParallelLinear)
        load(MLP(made, parts), model, MG + mg, tensors)
    assert torch.equal(tensors["linear_fc1.weight"], gate_up(weights, HF + hf))
    assert torch.equal(tensors["linear_fc2.weight"], weights[HF + hf + "down_proj.weight"])


def test_embedding_and_linears_of_attention(place: Place, tmp_path: Path) -> None:
    options = LegacyOptions(tensor=2)
    weights = converted(DENSE, options, tmp_path)
    hidden, heads = DENSE["hidden_size"], DENSE["num_attention_heads"]
    attention = MG + "self_attention."
    tensors: dict[str, Tensors] = {}
    for model in ranks(tmp_path / "out", options, place):
        made = settings(DENSE, place)
        both: dict[str, Any] = {"config": made, "init_method": made.init_method}
        common = both | {"bias": False, "skip_bias_add": False}
        modules = {
            "embedding.word_embeddings.": layers.VocabParallelEmbedding(24, hidden, **both),
            "output_layer.": layers.ColumnParallelLinear(hidden, 24, **common),
            attention + "linear_qb.": layers.ColumnParallelLinear(6, heads * 5, **common),
            attention + "linear_kvb.": layers.ColumnParallelLinear(4, heads * 8, **common),
            attention + "linear_proj.": layers.RowParallelLinear(heads * 5, hidden, input_is_parallel=True, **common),
        }  # fmt: skip
        for prefix, module in modules.items():
            load(module, model, prefix, tensors.setdefault(prefix, {}))
    for prefix, name in (
        ("embedding.word_embeddings.", "model.embed_tokens.weight"),
        ("output_layer.", "lm_head.weight"),
        (attention + "linear_qb.", HF + "self_attn.q_b_proj.weight"),
        (attention + "linear_kvb.", HF + "self_attn.kv_b_proj.weight"),
        (attention + "linear_proj.", HF + "self_attn.o_proj.weight"),
    ):
        assert torch.equal(tensors[prefix]["weight"], weights[name]), prefix
