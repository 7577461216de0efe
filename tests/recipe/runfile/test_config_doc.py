# SPDX-License-Identifier: Apache-2.0
"""docs/CONFIG.md is what the program says, and what the program says of each key is true."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from recipe.runfile import schema
from recipe.runfile.config import load
from recipe.runfile.config_doc import page
from recipe.runfile.derive import derive_run
from recipe.runfile.schema import RunConfig

REPO = Path(__file__).resolve().parents[3]
NPU = load(REPO / "configs" / "a3_256die.toml")
SIM = load(REPO / "configs" / "sim.toml")
SECTIONS = {name: hint for name, hint in typing.get_type_hints(RunConfig).items() if dataclasses.is_dataclass(hint)}


def keys() -> Iterator[tuple[str, Any]]:
    """Every key by its dotted name, with what is said of it."""
    for section, cls in SECTIONS.items():
        for field in dataclasses.fields(cls):
            if field.name == "recompute":
                yield from (
                    (f"actor.recompute.{field.name}", field.metadata) for field in dataclasses.fields(schema.Recompute)
                )
            else:
                yield f"{section}.{field.name}", field.metadata


ABOUT = dict(keys())
# Another valid value for each key that gives something. Where it needs others to go with it: those too.
OTHER: dict[str, dict[str, Any]] = {
    "run.name": {"run.name": "other"},
    "run.steps": {"run.steps": 71},
    "run.validate_every": {"run.validate_every": 7},
    "run.validate_first": {"run.validate_first": False},
    "run.seed": {"run.seed": 2},
    "run.save_every": {"run.save_every": 11},
    "run.resume": {"run.resume": "never"},
    "run.output_dir": {"run.output_dir": "/other"},
    "run.trackers": {"run.trackers": list(schema.TRACKERS)},
    "run.trackers_online": {"run.trackers": list(schema.TRACKERS), "run.trackers_online": True},
    "run.checkpoint_dir": {"run.checkpoint_dir": "/other"},
    "cluster.nodes": {"cluster.nodes": 32},
    "cluster.dies_per_node": {"cluster.dies_per_node": 32},
    "cluster.head": {"cluster.head": "192.0.2.7"},
    "cluster.interface": {"cluster.interface": "eth9"},
    "cluster.ray_port": {"cluster.ray_port": 6400},
    "cluster.hccl_base_port": {"cluster.hccl_base_port": 62000},
    "cluster.collective_timeout_s": {"cluster.collective_timeout_s": 600},
    "model.kind": {"model.kind": "random_init", "model.checkpoint": None},
    "model.path": {"model.path": "/other"},
    "model.checkpoint": {"model.checkpoint": "/other"},
    "model.architecture": {"model.architecture": None},
    "data.train_path": {"data.train_path": "/other"},
    "data.validation_path": {"data.validation_path": "/other"},
    "data.chat_template": {"data.chat_template": str(REPO / "data" / "chat_template.jinja")},
    "data.max_prompt_tokens": {"data.max_prompt_tokens": 900},
    "data.max_response_tokens": {"data.max_response_tokens": 1900},
    "data.validation_problems": {"data.validation_problems": 9},
    "reward.verifier": {"reward.verifier": "base_acc"},
    "reward.mix": {"reward.mix": {"format": 1.0}},
    "reward.workers": {"reward.workers": 0},
    "reward.tier3": {"reward.tier3": "math_verify"},
    "reward.refuse_copied": {"reward.refuse_copied": False},
    "reward.path": {"reward.path": "other.py"},
    "rollout.tensor_parallel": {"rollout.tensor_parallel": 4},
    "rollout.instances": {"rollout.instances": 4},
    "rollout.samples_per_prompt": {"rollout.samples_per_prompt": 8},
    "rollout.max_batched_tokens": {"rollout.max_batched_tokens": 2048},
    "rollout.memory_share": {"rollout.memory_share": 0.7},
    "rollout.temperature": {"rollout.temperature": 0.7},
    "rollout.top_p": {"rollout.top_p": 0.7},
    "rollout.top_k": {"rollout.top_k": 7},
    "rollout.ignore_eos": {"rollout.ignore_eos": True},
    "rollout.validation_samples": {"rollout.validation_samples": 3},
    "rollout.validation_temperature": {"rollout.validation_temperature": 0.0},
    "rollout.validation_top_p": {"rollout.validation_top_p": 0.7},
    "rollout.validation_top_k": {"rollout.validation_top_k": 7},
    "rollout.graph_mode": {"rollout.graph_mode": False},
    "rollout.graph_sizes": {"rollout.graph_sizes": [8, 32]},
    "rollout.multistream_mla": {"rollout.multistream_mla": True},
    "rollout.multistream_moe": {"rollout.multistream_moe": True},
    "rollout.kv_nz": {"rollout.kv_nz": True},
    "rollout.spread_samples": {"rollout.spread_samples": False},
    "rollout.request_seeds": {"rollout.request_seeds": False},
    "rollout.rebalance": {"rollout.rebalance": True},
    "rollout.dp_sync_on_device": {"rollout.dp_sync_on_device": False},
    "rollout.direct_sync": {"rollout.direct_sync": False},
    "rollout.direct_sync_buffer_mib": {"rollout.direct_sync_buffer_mib": 256},
    "actor.expert_parallel": {"actor.expert_parallel": 16},
    "actor.stage_layers": {"actor.stage_layers": [7, 8, 8, 8, 8, 8, 8, 6]},
    "actor.micro_batch_tokens": {"actor.micro_batch_tokens": 2 * 3072},
    "actor.log_prob_micro_batch_tokens": {"actor.log_prob_micro_batch_tokens": 2 * 3072},
    "actor.recompute.granularity": {"actor.recompute": schema.Recompute(granularity="selective")},
    "actor.recompute.method": {"actor.recompute": schema.Recompute(granularity="full", method="uniform", layers=8)},
    "actor.recompute.layers": {"actor.recompute": schema.Recompute(granularity="full", method="block", layers=4)},
    "actor.offload_parameters": {"actor.offload_parameters": False},
    "actor.keep_until_sync": {"actor.keep_until_sync": False},
    "actor.optimizer": {"actor.optimizer": "host"},
    "actor.optimizer_host_share": {"actor.optimizer": "host", "actor.optimizer_host_share": 0.5},
    "actor.moe_profile": {"actor.moe_profile": "stable"},
    "train.prompts_per_step": {"train.prompts_per_step": 1024},
    "train.updates_per_step": {"train.updates_per_step": 2},
    "train.learning_rate": {"train.learning_rate": 1e-7},
    "train.warmup_steps": {"train.warmup_steps": 5},
    "train.weight_decay": {"train.weight_decay": 0.1},
    "train.adam_beta2": {"train.adam_beta2": 0.95},
    "train.max_gradient_norm": {"train.max_gradient_norm": 2.0},
    "train.clip_ratio": {"train.clip_ratio": 0.1},
    "train.clip_ratio_high": {"train.clip_ratio_high": 0.28},
    "train.kl_coefficient": {"train.kl_coefficient": 0.2},
    "train.kl_estimator": {"train.kl_estimator": "kl"},
    "train.importance_weights": {"train.importance_weights": "token"},
    "train.importance_most": {"train.importance_most": 1.5},
    "train.balance_batch": {"train.balance_batch": False},
    "train.loss_mode": {"train.loss_mode": "vanilla"},
    "train.routing_replay": {"train.routing_replay": "rollout"},
    "profile.steps": {"profile.steps": [3]},
    "profile.ranks": {"profile.ranks": [1]},
    "profile.phases_apart": {"profile.phases_apart": True},
    "profile.level": {"profile.level": "level2"},
    "profile.shapes": {"profile.shapes": True},
    "profile.memory": {"profile.memory": True},
    "profile.modules": {"profile.modules": True},
    "profile.stacks": {"profile.stacks": True},
    "profile.parse": {"profile.parse": False},
}
# Further values of a key whose settings no single change can show.
AGAIN = {
    "actor.stage_layers": {"actor.stage_layers": [6, 7, 8, 8, 8, 8, 8, 8]},
    "actor.optimizer": {"actor.optimizer": "offloaded"},
    "run.trackers_online": {"run.trackers": list(schema.TRACKERS)},
}
# Keys of simulated runs, and one that MindSpeed refuses to change on NPUs.
OTHER_SIM: dict[str, dict[str, Any]] = {
    "simulator.hbm_mib": {"simulator.hbm_mib": 512},
    "simulator.outside_mib": {"simulator.outside_mib": 32},
    "simulator.strict": {"simulator.strict": True},
    "actor.tensor_parallel": {"actor.tensor_parallel": 2},
}
_PATHS = {"hydra.run.dir", "trainer.default_local_dir"}
_TOPK = {"VLLM_ASCEND_ENABLE_TOPK_OPTIMIZE"}
_PROFILER = ("ranks", *(f"tool_config.npu.{name}" for name in ("contents", "level", "analysis", "discrete")))
# What changes besides: sizes that follow (the page's table "What is derived"), and what stays together with a value.
ALSO = {
    "run.name": _PATHS | {"RECIPE_RUN_DIR", "RECIPE_RUN_ID", "VERL_FILE_LOGGER_PATH", "trainer.validation_data_dir"},
    "run.steps": {"trainer.total_epochs"},
    "run.output_dir": _PATHS,
    "run.trackers_online": {"trainer.logger", "TENSORBOARD_DIR", "WANDB_DIR", "SWANLAB_LOG_DIR"},
    "cluster.nodes": {"rollout.max_num_seqs", "VLLM_DP_SIZE"},
    "cluster.dies_per_node": {"rollout.max_num_seqs", "VLLM_DP_SIZE"},
    "model.kind": {"actor.megatron.dist_checkpointing_path", "ref.megatron.dist_checkpointing_path"},
    "data.max_prompt_tokens": {"rollout.max_model_len"},
    "rollout.tensor_parallel": {"rollout.max_num_seqs"},
    "rollout.top_p": _TOPK,
    "rollout.top_k": _TOPK,
    "actor.recompute.granularity": {"recompute_method", "recompute_num_layers"},
    "actor.optimizer_host_share": {
        "swap_optimizer",
        *(
            f"actor.optim.override_optimizer_config.{name}"
            for name in ("optimizer_cpu_offload", "use_precision_aware_optimizer", "overlap_cpu_optimizer_d2h_h2d")
        ),
    },
    "actor.tensor_parallel": {"actor.megatron.sequence_parallel", "ref.megatron.sequence_parallel"},
    "train.prompts_per_step": {"actor.ppo_mini_batch_size", "rollout.max_num_seqs"},
    "train.clip_ratio": {"actor.clip_ratio_high"},
    "profile.steps": {f"{role}.profiler.{rest}" for role in ("actor", "ref") for rest in _PROFILER},
}


def changed(config: RunConfig, values: dict[str, Any]) -> RunConfig:
    for name, value in values.items():
        section, _, key = name.partition(".")
        config = dataclasses.replace(config, **{section: dataclasses.replace(getattr(config, section), **{key: value})})
    return config


def settings(config: RunConfig) -> dict[str, str]:
    """Everything that is derived, by the names that docs/CONFIG.md uses."""
    shown = derive_run(config).complete()
    pairs = [item.lstrip("+").split("=", 1) for item in shown.overrides]
    heads = (
        "actor_rollout_ref.",
        "actor.megatron.override_transformer_config.",
        "rollout.engine_kwargs.vllm.additional_config.",
    )
    named = dict(shown.environment)
    for name, value in pairs:
        for head in heads:
            name = name.removeprefix(head)
        named[name.replace("custom_reward_function.reward_kwargs.", "reward_kwargs.")] = value
    return named


def gives(name: str) -> set[str]:
    return {setting for setting in ABOUT[name]["gives"].split(", ") if setting}


def test_the_page_is_what_the_program_says() -> None:
    assert (REPO / "docs" / "CONFIG.md").read_text(encoding="utf-8") == page(), (
        "run: python -m recipe show --keys > docs/CONFIG.md"
    )


def test_every_key_that_gives_something_is_tried() -> None:
    assert {name for name in ABOUT if gives(name)} == {*OTHER, *OTHER_SIM}


@pytest.mark.parametrize("name", [*OTHER, *OTHER_SIM])
def test_a_key_gives_what_it_is_said_to_give(name: str) -> None:
    base, other = (SIM, OTHER_SIM[name]) if name in OTHER_SIM else (NPU, OTHER[name])
    if name.startswith("profile.") and name != "profile.steps":
        base = changed(base, OTHER["profile.steps"])
    before, differing = settings(base), set()
    for after in (settings(changed(base, values)) for values in (other, AGAIN.get(name, other))):
        differing |= {key for key in {*before, *after} if before.get(key) != after.get(key)}
    promised = gives(name)
    missing = {
        setting for setting in promised if not any(key == setting or key.startswith(f"{setting}.") for key in differing)
    }
    assert not missing, f"{name} is said to give {missing}, which stay as they are"
    surplus = {
        key for key in differing if not any(key == setting or key.startswith(f"{setting}.") for setting in promised)
    }
    assert surplus == ALSO.get(name, set())
