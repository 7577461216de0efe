# SPDX-License-Identifier: Apache-2.0
"""What cannot be trained is refused by every command in the same words, before anything is started or written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from recipe.__main__ import main
from recipe.models.families import describe, require_converted
from recipe.models.family import ModelError
from recipe.models.published import CONFIGS, KNOWN
from recipe.weights import cast_cli, convert, mcore_to_hf

V3, MOE, DENSE, LLAMA = (CONFIGS[name] for name in ("deepseek_v3_671b", "qwen3_30b_a3b", "qwen3_8b", "llama3_1_8b"))
GLM_4_5_AIR = {
    "architectures": ["Glm4MoeForCausalLM"], "model_type": "glm4_moe", "attention_bias": True, "head_dim": 128,
    "first_k_dense_replace": 1, "hidden_size": 4096, "intermediate_size": 10944, "max_position_embeddings": 131072,
    "moe_intermediate_size": 1408, "n_group": 1, "n_routed_experts": 128, "n_shared_experts": 1,
    "norm_topk_prob": True, "num_attention_heads": 96, "num_experts_per_tok": 8, "num_hidden_layers": 46,
    "num_key_value_heads": 8, "num_nextn_predict_layers": 1, "partial_rotary_factor": 0.5, "topk_group": 1,
    "vocab_size": 151552,
}  # fmt: skip
V2_LITE = {
    "architectures": ["DeepseekV2ForCausalLM"], "model_type": "deepseek_v2", "hidden_size": 2048,
    "num_hidden_layers": 27, "num_attention_heads": 16, "q_lora_rank": None, "kv_lora_rank": 512,
    "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128, "n_routed_experts": 64, "n_shared_experts": 2,
    "num_experts_per_tok": 6, "moe_intermediate_size": 1408, "intermediate_size": 10944, "vocab_size": 102400,
    "scoring_func": "softmax", "topk_method": "greedy", "norm_topk_prob": False, "max_position_embeddings": 163840,
}  # fmt: skip
V4 = {
    "architectures": ["DeepseekV4ForCausalLM"], "model_type": "deepseek_v4", "hidden_size": 4096,
    "num_hidden_layers": 43, "n_routed_experts": 256, "num_experts_per_tok": 6, "moe_intermediate_size": 2048,
}  # fmt: skip
QWEN3_NEXT = {
    "architectures": ["Qwen3NextForCausalLM"], "model_type": "qwen3_next", "num_hidden_layers": 48,
    "hidden_size": 2048, "num_attention_heads": 16, "num_key_value_heads": 2, "head_dim": 256, "num_experts": 512,
    "num_experts_per_tok": 10, "full_attention_interval": 4, "vocab_size": 151936,
}  # fmt: skip
GPT_OSS = {
    "architectures": ["GptOssForCausalLM"], "model_type": "gpt_oss", "hidden_size": 2880, "num_hidden_layers": 24,
    "num_attention_heads": 64, "num_key_value_heads": 8, "head_dim": 64, "num_local_experts": 32,
    "num_experts_per_tok": 4, "sliding_window": 128, "vocab_size": 201088,
}  # fmt: skip
GEMMA = {"architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text", "hidden_size": 2560}
REFUSED: dict[str, dict[str, Any]] = {
    "DeepSeek-V2-Lite": V2_LITE,
    "DeepSeek-V3.2": V3 | {"model_type": "deepseek_v32", "index_topk": 2048},
    "DeepSeek-V4-Flash": V4,
    "GLM-4.5-Air": GLM_4_5_AIR,
    "Qwen3-Next-80B-A3B": QWEN3_NEXT,
    "gpt-oss-20b": GPT_OSS,
    "Qwen1.5-MoE": MOE | {"model_type": "qwen2_moe", "architectures": ["Qwen2MoeForCausalLM"]},
    "Gemma-3": GEMMA,
    "no model_type": {name: value for name, value in DENSE.items() if name != "model_type"},
    "a V3 whose router takes a softmax": V3 | {"scoring_func": "softmax"},
    "a V3 of 6 groups": V3 | {"n_group": 6},
    "a V3 with linear rope": V3 | {"rope_scaling": {"type": "linear", "factor": 4.0}},
    "a Kimi-K2 without its latent": {name: v for name, v in CONFIGS["kimi_k2"].items() if name != "kv_lora_rank"},
    "a reward model of Qwen3": DENSE | {"architectures": ["Qwen3ForSequenceClassification"]},
    "a Qwen3 of transformers 5": DENSE | {"rope_parameters": {"rope_theta": 1000000, "rope_type": "default"}},
    "a Qwen3 stretched by yarn": DENSE | {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}},
    "a Qwen3-MoE with dense layers": MOE | {"mlp_only_layers": [0, 1]},
    "a Qwen3-MoE that does not normalise": MOE | {"norm_topk_prob": False},
    "a Llama whose heads do not divide": LLAMA | {"num_attention_heads": 30},
    "a Llama whose layers are a text": LLAMA | {"num_hidden_layers": "32"},
    "a Llama with biases": LLAMA | {"attention_bias": True},
}
HARDWARE = {"npu": 'hardware = "a2_64"', "sim": ""}
RUN = """
[run]
name = "refused"
steps = 1
validate_every = 1
output_dir = "{directory}/runs"
step_deadline_s = 60

[cluster]
device = "{device}"
nodes = 1
dies_per_node = 8
{hardware}

[model]
kind = "path"
path = "{directory}/hf"
checkpoint = "{directory}/mcore"

[data]
kind = "parquet"
train_path = "{directory}/train.parquet"
validation_path = "{directory}/test.parquet"
max_prompt_tokens = 64
max_response_tokens = 64

[rollout]
tensor_parallel = 1
samples_per_prompt = 8
max_batched_tokens = 4096
memory_share = 0.5

[actor]
tensor_parallel = 1
expert_parallel = 8
stage_layers = [8]
micro_batch_tokens = 1024

[train]
prompts_per_step = 8
learning_rate = 1e-6
"""


def _tool(run: Callable[[list[str]], int], *arguments: str) -> Callable[[Path], int]:
    return lambda directory: run([argument.replace("@", str(directory)) for argument in arguments])


#: What would launch the run, or says what the launch would be.
RUNNING: dict[str, Callable[[Path], int]] = {
    "show": _tool(main, "show", "@/npu.toml"),
    "plan": _tool(main, "plan", "@/npu.toml", "--no-search"),
    "preflight": _tool(main, "preflight", "@/npu.toml", "--no-cluster"),
    "rehearse": _tool(main, "rehearse", "@/npu.toml"),
    "launch": _tool(main, "launch", "@/sim.toml"),
    "launch --check": _tool(main, "launch", "--check", "@/sim.toml"),
    "node": _tool(main, "node", "@/npu.toml"),
}
COMMANDS: dict[str, Callable[[Path], int]] = RUNNING | {
    "plan --fit": _tool(main, "plan", "--fit", "@/hf", "--hardware", "a2_64"),
    "model-config": _tool(main, "model-config", "@/hf", "--out", "@/out"),
    "cast": _tool(cast_cli.main, "--input-fp8-hf-path", "@/hf", "--output-bf16-hf-path", "@/out"),
    "torch_dist": _tool(convert.main, "--load-dir", "@/hf", "--save-dir", "@/out"),
    "legacy": _tool(convert.main, "--load-dir", "@/hf", "--save-dir", "@/out", "--format", "legacy"),
    "back": _tool(mcore_to_hf.main, "--load-dir", "@/mcore", "--save-dir", "@/out", "--hf-config", "@/hf"),
}
# What nothing here describes can be cast all the same: FP8 is FP8, whatever the blocks around it.
CAST = {"Gemma-3", "no model_type"}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Run files, and a Hugging Face directory with one tensor in FP8."""
    (tmp_path / "hf").mkdir()
    (tmp_path / "mcore").mkdir()
    tensors = {"x": torch.zeros(128, 128).to(torch.float8_e4m3fn), "x_scale_inv": torch.ones(1, 1)}
    save_file(tensors, tmp_path / "hf" / "model.safetensors")
    for device in ("npu", "sim"):
        (tmp_path / f"{device}.toml").write_text(
            RUN.format(directory=tmp_path, device=device, hardware=HARDWARE[device])
        )
    return tmp_path


@pytest.mark.parametrize("name", REFUSED)
def test_every_command_refuses_in_the_same_words(
    name: str, directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ModelError) as refused:
        describe(REFUSED[name])
    words = str(refused.value)
    assert "\n" not in words and len(words) < 300
    fp8 = {"quantization_config": V3["quantization_config"]}
    (directory / "hf" / "config.json").write_text(json.dumps(REFUSED[name] | fp8))
    for command, run in COMMANDS.items():
        if command == "cast" and name in CAST:
            continue
        assert run(directory) != 0, command
        printed = capsys.readouterr()
        lines = [line for line in (printed.err + printed.out).splitlines() if words in line]
        assert lines, f"{command}: {printed.err}{printed.out}"
        assert command == "preflight" or len((printed.err + printed.out).splitlines()) == 1, command
        assert not (directory / "out").exists() and not (directory / "runs").exists(), command


# As published, which what converts weights takes. The sizes are such that the layout of the run fits them.
SMALLER = {"num_hidden_layers": 8, "num_nextn_predict_layers": 0}
PLAIN_V3 = {key: value for key, value in V3.items() if key != "quantization_config"} | SMALLER
UNCONVERTED: dict[str, tuple[dict[str, Any], str]] = {
    "DeepSeek-V3": (V3 | SMALLER, "quantization_config is {'quant_method': 'fp8', "),
    "DeepSeek-V3 in BF16": (PLAIN_V3 | {"num_nextn_predict_layers": 1}, "num_nextn_predict_layers is 1; "),
    "a null of layers": (PLAIN_V3 | {"num_nextn_predict_layers": None}, "num_nextn_predict_layers is None; "),
    "Kimi-K2 in BF16": (PLAIN_V3 | {"model_type": "kimi_k2"}, "model_type is 'kimi_k2'; "),
    "Qwen3-8B-FP8": (
        DENSE | {"num_hidden_layers": 8, "quantization_config": V3["quantization_config"]},
        "quantization_config is {'quant_method': 'fp8', ",
    ),
    "a null of quantisation": (
        DENSE | {"num_hidden_layers": 8, "quantization_config": None},
        "quantization_config is None; ",
    ),
}


@pytest.mark.parametrize("name", UNCONVERTED)
def test_what_must_be_converted_first_is_refused_in_the_same_words_and_then_taken(
    name: str, directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, said = UNCONVERTED[name]
    with pytest.raises(ModelError) as refused:
        require_converted(config)
    words = str(refused.value)
    assert words.startswith(said) and "\n" not in words and len(words) < 300
    for converter in ("scripts/convert_hf_to_mcore.py", "scripts/fp8_cast_bf16.py", "python -m recipe model-config"):
        assert converter in words
    file = directory / "hf" / "config.json"
    file.write_text(json.dumps(config))
    for command, run in RUNNING.items():
        assert run(directory) != 0, command
        printed = capsys.readouterr()
        assert words in printed.err + printed.out, command
        assert command == "preflight" or len((printed.err + printed.out).splitlines()) == 1, command
        assert not (directory / "runs").exists(), command
    assert main(["model-config", str(directory / "hf"), "--out", str(directory / "out")]) == 0
    file.write_bytes((directory / "out" / "config.json").read_bytes())
    capsys.readouterr()
    assert RUNNING["plan"](directory) == 0
    RUNNING["preflight"](directory)
    assert "config.json: " not in capsys.readouterr().out


@pytest.mark.parametrize("name", CONFIGS)
def test_a_run_that_names_sizes_alone_is_planned(
    name: str, directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (directory / "npu.toml").write_text(
        RUN.format(directory=directory, device="npu", hardware=HARDWARE["npu"])
        .replace("[model]", f'[model]\narchitecture = "{name}"')
        .replace("stage_layers = [8]", f"stage_layers = [{CONFIGS[name]['num_hidden_layers']}]")
        .replace("expert_parallel = 8", f"expert_parallel = {8 if KNOWN[name].experts else 1}")
    )
    assert RUNNING["plan"](directory) == 0, capsys.readouterr().err


@pytest.mark.parametrize("name", CONFIGS)
def test_what_is_published_is_described(name: str) -> None:
    assert describe(CONFIGS[name]).layers == CONFIGS[name]["num_hidden_layers"]
