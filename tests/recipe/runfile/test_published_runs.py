# SPDX-License-Identifier: Apache-2.0
"""What is derived for the published runs, against figures worked out by hand from their own scripts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from recipe.models.published import KNOWN
from recipe.runfile.config import load
from recipe.runfile.derive import derive_run
from recipe.runfile.show import as_json

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
PUBLISHED = sorted(path.stem for path in CONFIGS.glob("*.toml") if not path.stem.startswith("sim"))
MODEL = KNOWN["deepseek_v3_671b"]
TRANSFORMER = "actor.megatron.override_transformer_config."


def settings(name: str) -> dict[str, str]:
    """The overrides of a run as text by key, `actor_rollout_ref.` and a leading `+` left out."""
    pairs = (item.lstrip("+").split("=", 1) for item in derive_run(load(CONFIGS / f"{name}.toml")).complete().overrides)
    return {key.removeprefix("actor_rollout_ref."): value for key, value in pairs}


def sizes(name: str) -> dict[str, Any]:
    return as_json(derive_run(load(CONFIGS / f"{name}.toml")).complete())


def test_there_are_nine_of_them() -> None:
    assert PUBLISHED == [
        "a2_8npu_moonlight_16b",
        "a2_8npu_qwen2_5_7b",
        "a2_8npu_qwen3_8b",
        "a3_16die_qwen3_30b_a3b",
        "a3_256die",
        "a3_256die_random_init",
        "a3_256die_true_weight",
        "a3_384die_base_acc",
        "h20_128gpu_math_lighteval",
    ]


def test_verls_run_on_256_dies() -> None:
    told, asked = sizes("a3_256die"), settings("a3_256die")
    layout = told["layout"]
    # 16 nodes x 16 dies; TP2 leaves 256 / 2 = 128 engines, all in one instance: 256 experts over 256 dies.
    assert told["environment"]["VLLM_DP_SIZE"] == "128"
    assert (layout["rollout_engines"], layout["rollout_expert"]) == (128, 256)
    # 512 prompts x 16 answers = 8192 sequences / 128 engines = 64, as published.
    assert asked["rollout.max_num_seqs"] == "64"
    # 8 stages of 256 / 8 = 32 dies, TP1: 32 data parallel ranks, whose experts are all there once (EP32).
    assert (layout["actor_data"], layout["expert_data"]) == (32, 1)
    assert layout["actor_sequences_per_rank"] == 8192 // 32 == 256
    assert sum(layout["stage_layers"]) == 6 + 6 * 8 + 7 == 61
    assert asked[TRANSFORMER + "num_layers_in_first_pipeline_stage"] == "6"
    assert asked[TRANSFORMER + "num_layers_in_last_pipeline_stage"] == "7"
    assert asked[TRANSFORMER + "pipeline_num_transformer_layers"] == "[[6],[8],[8],[8],[8],[8],[8],[7]]"
    # A pass holds 3072 tokens in an update, one sequence of 1024 + 2048, and four without gradients.
    assert (asked["actor.ppo_micro_batch_size_per_gpu"], asked["ref.log_prob_micro_batch_size_per_gpu"]) == ("1", "4")
    # The published script's own values.
    expected = {
        "data.train_batch_size": "512",
        "actor.ppo_mini_batch_size": "512",
        "data.max_prompt_length": "1024",
        "data.max_response_length": "2048",
        "rollout.n": "16",
        "rollout.max_num_batched_tokens": "1024",
        "rollout.gpu_memory_utilization": "0.8",
        "rollout.tensor_model_parallel_size": "2",
        "rollout.temperature": "1.0",
        "rollout.top_p": "1.0",
        "rollout.top_k": "-1",
        "rollout.enforce_eager": "false",
        "actor.optim.lr": "1e-06",
        "actor.kl_loss_coef": "0.001",
        "actor.kl_loss_type": "low_var_kl",
        "actor.megatron.tensor_model_parallel_size": "1",
        "actor.megatron.pipeline_model_parallel_size": "8",
        "actor.megatron.expert_model_parallel_size": "32",
        "actor.megatron.param_offload": "true",
        "actor.megatron.optimizer_offload": "false",
        TRANSFORMER + "recompute_granularity": "full",
        TRANSFORMER + "recompute_method": "block",
        TRANSFORMER + "recompute_num_layers": "8",
        TRANSFORMER + "swap_optimizer": "true",
        # Not in the published script, and needed: vLLM routes by groups.
        TRANSFORMER + "moe_router_num_groups": "8",
        TRANSFORMER + "moe_router_group_topk": "4",
        # Not in it either: an NPU multiplies no float64, which verl would have the router in.
        TRANSFORMER + "moe_router_dtype": "fp32",
        "rollout.enable_prefix_caching": "false",
        "trainer.device": "npu",
        "trainer.nnodes": "16",
        "trainer.n_gpus_per_node": "16",
        "trainer.test_freq": "5",
        "trainer.val_before_train": "true",
        "trainer.balance_batch": "true",
        # Published with a pass for the old log-probabilities, whatever its loss makes of them.
        "actor.policy_loss.loss_mode": "npu_on_policy",
    }
    assert {key: asked.get(key) for key in expected} == expected
    # 1024 tokens a step are fewer than a sequence of 3072, so the Ascend scheduler must cut prompts.
    assert told["vllm"]["additional_config"]["ascend_scheduler_config"]["enable_chunked_prefill"] is True
    assert told["vllm"]["additional_config"]["torchair_graph_config"]["graph_batch_sizes"] == [4, 8, 16, 32, 64]


def test_the_longer_run_with_weights_has_two_instances() -> None:
    told, asked = sizes("a3_256die_true_weight"), settings("a3_256die_true_weight")
    # 128 engines in two instances: 64 each, 256 experts over 64 x 2 = 128 dies.
    assert told["environment"]["VLLM_DP_SIZE"] == "64"
    assert (told["layout"]["rollout_instances"], told["layout"]["rollout_expert"]) == (2, 128)
    # An engine has its share of all sequences whatever the instances: 8192 / 128.
    assert asked["rollout.max_num_seqs"] == "64"
    assert (asked["rollout.top_p"], asked["rollout.top_k"], asked["rollout.temperature"]) == ("0.9", "50", "0.9")
    assert asked["rollout.ignore_eos"] == "false" and asked["rollout.max_model_len"] == "4096"
    assert asked["actor.load_weight"] == asked["ref.load_weight"] == "true"
    assert (asked["trainer.test_freq"], asked["trainer.val_before_train"]) == ("-1", "false")
    assert asked["trainer.balance_batch"] == "false" and asked["actor.policy_loss.loss_mode"] == "npu_on_policy"
    graph = told["vllm"]["additional_config"]["torchair_graph_config"]
    assert graph["enable_multistream_mla"] and graph["enable_multistream_moe"]
    # Micro batches of 1 and 4 sequences of 4096 tokens.
    assert (asked["actor.ppo_micro_batch_size_per_gpu"], asked["ref.log_prob_micro_batch_size_per_gpu"]) == ("1", "4")


def test_the_speed_test_without_weights() -> None:
    told, asked = sizes("a3_256die_random_init"), settings("a3_256die_random_init")
    assert told["environment"]["VLLM_DP_SIZE"] == "128"
    assert asked["rollout.ignore_eos"] == "true" and asked["data.max_response_length"] == "3072"
    assert asked["actor.load_weight"] == asked["ref.load_weight"] == "false"
    assert asked["actor.megatron.dist_checkpointing_path"] == "null"
    assert asked["trainer.resume_mode"] == "disable" and asked["trainer.save_freq"] == "-1"


def test_mindspeed_rls_run_on_384_dies() -> None:
    told, asked = sizes("a3_384die_base_acc"), settings("a3_384die_base_acc")
    layout = told["layout"]
    # 24 x 16 = 384 dies; published infer_expert_parallel_size 64 = 32 engines of TP2: 192 / 32 = 6 instances.
    assert (layout["dies"], layout["rollout_instances"], layout["rollout_expert"]) == (384, 6, 64)
    assert told["environment"]["VLLM_DP_SIZE"] == "32"
    # 384 prompts x 32 = 12288 / 192 engines = 64, as published.
    assert asked["rollout.max_num_seqs"] == "64"
    # 6 stages of 64 dies; published TP4 x EP16 put 256 / 64 = 4 experts on a die, and so does EP64.
    assert MODEL.experts // layout["actor_expert"] == MODEL.experts // (4 * 16) == 4
    assert layout["actor_sequences_per_rank"] == 12288 // 64 == 192
    assert sum(layout["stage_layers"]) == 61
    assert asked["custom_reward_function.reward_kwargs.verifier"] == "base_acc"
    expected = {
        "actor.clip_ratio": "0.2",
        "actor.kl_loss_coef": "0.001",
        "actor.kl_loss_type": "kl",
        "actor.optim.clip_grad": "10000.0",
        "actor.optim.override_optimizer_config.adam_beta2": "0.95",
        "actor.optim.weight_decay": "0.0",
        "rollout.gpu_memory_utilization": "0.75",
        TRANSFORMER + "recompute_num_layers": "9",
    }
    assert {key: asked.get(key) for key in expected} == expected


def test_pais_run_on_128_gpus() -> None:
    told, asked = sizes("h20_128gpu_math_lighteval"), settings("h20_128gpu_math_lighteval")
    # Four engines of TP32; stock vLLM has no data parallel domain.
    assert told["environment"]["VLLM_DP_SIZE"] == "1" and told["vllm"] is None
    assert asked["trainer.device"] == "cuda"
    # 16 stages of 8 GPUs: EP8 puts 256 / 8 = 32 experts on a GPU; 3 + 14 x 4 + 2 = 61 layers.
    assert (told["layout"]["actor_data"], told["layout"]["expert_data"]) == (8, 1)
    assert sum(told["layout"]["stage_layers"]) == 3 + 14 * 4 + 2 == 61
    # 128 prompts in 32 updates: 4 prompts x 2 answers = 8 sequences, one for each data parallel rank.
    assert asked["actor.ppo_mini_batch_size"] == "4" and told["layout"]["update_sequences_per_rank"] == 1
    expected = {
        "actor.optim.lr": "2e-07",
        "actor.kl_loss_coef": "0.0",
        "rollout.gpu_memory_utilization": "0.6",
        "rollout.n": "2",
        "rollout.val_kwargs.do_sample": "false",
        "actor.megatron.optimizer_offload": "true",
        TRANSFORMER + "recompute_method": "uniform",
        TRANSFORMER + "moe_router_load_balancing_type": "none",
        TRANSFORMER + "moe_aux_loss_coeff": "0.0",
        TRANSFORMER + "moe_router_bias_update_rate": "0.0",
        TRANSFORMER + "moe_router_dtype": "fp32",
        TRANSFORMER + "apply_rope_fusion": "false",
    }
    assert {key: asked.get(key) for key in expected} == expected
    assert TRANSFORMER + "use_flash_attn" not in asked  # MindSpeed's


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_published_run_fits_the_model(name: str) -> None:
    config, told = load(CONFIGS / f"{name}.toml"), sizes(name)
    layout = told["layout"]
    model = KNOWN[config.model.architecture or ""]
    assert sum(layout["stage_layers"]) == model.layers
    for parts in (layout["actor_expert"], layout["rollout_expert"]):
        assert model.experts % parts == 0
    assert model.heads % layout["rollout_tensor"] == 0
    # One weight update of what was sampled, or several that are said to be off policy.
    assert config.train.updates_per_step == 1 or config.train.loss_mode == "vanilla"
    assert config.cluster.nodes == 1 or config.model.architecture == "deepseek_v3_671b"
    assert not any("trust_remote_code=true" in item.lower() for item in told["arguments"])
