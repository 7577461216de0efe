# SPDX-License-Identifier: Apache-2.0
"""Hydra overrides for `verl.trainer.main_ppo --config-name=ppo_megatron_trainer` (verl 0.6.1), derived from a run file.

A key that the upstream configuration does not have needs a leading `+`; such keys are written with it here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from recipe.runfile.engines import graph_options
from recipe.runfile.hydra import quote
from recipe.runfile.inputs import Inputs
from recipe.runfile.layout import Layout
from recipe.runfile.paths import REPO, RunPaths
from recipe.runfile.schema import CUDA, HOST, OFFLOADED, ON_POLICY, RunConfig
from recipe.runfile.schema.profile import PROFILED
from recipe.runfile.trackers import ALWAYS

# What the overrides follow on the command line.
DRIVER = ["-m", "recipe.launch.driver", "--config-name=ppo_megatron_trainer"]
# CPUs Ray may hand out besides one per die: TaskRunner and short helper tasks. A logical count; it starts no threads.
SPARE_CPUS = 4
OBJECT_STORE_BYTES = 256 * 2**20


@dataclass(frozen=True)
class Basis:
    """What the overrides follow from.

    `added` goes into verl's `override_transformer_config` beside what the run file asks for: what the model and
    MindSpeed need. `chat_template` is the text of the one to render prompts with; None: the tokenizer's own.
    """

    config: RunConfig
    layout: Layout
    inputs: Inputs
    paths: RunPaths
    added: dict[str, Any]
    chat_template: str | None


def hydra_overrides(basis: Basis) -> list[str]:
    """The command line after `--config-name=...`, one override per item."""
    values: dict[str, Any] = {}
    ray = _own_ray if basis.config.cluster.own_ray else _cluster_ray
    for part in (_data, _chat_template, _model, _rollout, _actor, _trainer, _profile, ray):
        values |= part(basis)
    return [f"{key}={quote(value)}" for key, value in values.items()]


def _data(basis: Basis) -> dict[str, Any]:
    config, inputs = basis.config, basis.inputs
    # Files converted at launch hold the rows of a validation as they are asked for; given ones hold every problem once.
    is_parquet = config.data.kind == "parquet"
    return {
        "data.train_files": str(inputs.train),
        "data.val_files": str(inputs.validation),
        "data.val_max_samples": (config.data.validation_problems or -1) if is_parquet else -1,
        "data.train_batch_size": config.train.prompts_per_step,
        "data.max_prompt_length": inputs.prompt_tokens,
        "data.max_response_length": config.data.max_response_tokens,
        "data.filter_overlong_prompts": True,
        "data.truncation": "error",
        "data.seed": config.run.seed,
        "data.sampler.class_path": "pkg://verl_patches.utils.dataset.shuffle",
        "data.sampler.class_name": "ResumableShuffle",
        "data.dataloader_num_workers": 0,
        **_reward(config),
    }


def _chat_template(basis: Basis) -> dict[str, Any]:
    if basis.chat_template is None:
        return {}
    return {
        "+data.apply_chat_template_kwargs.chat_template": basis.chat_template,
        # The workers render nothing; with it, the tokenizer beside a checkpoint is the one that was trained with.
        "actor_rollout_ref.model.custom_chat_template": basis.chat_template,
    }


def _reward(config: RunConfig) -> dict[str, Any]:
    reward, prefix = config.reward, "+custom_reward_function.reward_kwargs."
    values: dict[str, Any] = {
        "custom_reward_function.path": str(REPO / reward.path),
        "custom_reward_function.name": "compute_scores" if reward.workers else "compute_score",
        "reward_model.reward_manager": "batch" if reward.workers else "naive",
        prefix + "verifier": reward.verifier,
    }
    values |= {f"{prefix}mix.{name}": weight for name, weight in reward.mix.items()}
    if reward.workers:
        values[prefix + "workers"] = reward.workers
    if reward.tier3 is not None:
        values[prefix + "tier3"] = reward.tier3
    if not reward.refuse_copied:
        values[prefix + "refuse_copied"] = False
    return values


def _model(basis: Basis) -> dict[str, Any]:
    inputs, train = basis.inputs, basis.config.train
    return {
        "actor_rollout_ref.model.path": str(inputs.model),
        "actor_rollout_ref.model.use_remove_padding": True,
        "algorithm.adv_estimator": "grpo",
        "algorithm.use_kl_in_reward": False,
        "trainer.balance_batch": train.balance_batch,
        # verl then takes the rollout's log-probabilities for the old ones; the on-policy loss only compares with them.
        "algorithm.rollout_correction.bypass_mode": train.loss_mode == ON_POLICY,
        "algorithm.rollout_correction.rollout_is": weights if (weights := train.importance_weights) != "off" else None,
        "algorithm.rollout_correction.rollout_is_threshold": train.importance_most,
    }


def _rollout(basis: Basis) -> dict[str, Any]:
    config, layout, inputs = basis.config, basis.layout, basis.inputs
    rollout, prefix = config.rollout, "actor_rollout_ref.rollout."
    values = {
        "name": "vllm",
        "mode": "sync",
        "load_format": "dummy",  # the weights come from the actor before every generation
        "n": rollout.samples_per_prompt,
        "temperature": rollout.temperature,
        "top_p": rollout.top_p,
        "top_k": rollout.top_k or -1,
        "ignore_eos": rollout.ignore_eos,
        "tensor_model_parallel_size": layout.rollout_tensor,
        "max_num_seqs": layout.rollout_sequences_per_engine,
        "max_num_batched_tokens": rollout.max_batched_tokens,
        "max_model_len": inputs.prompt_tokens + config.data.max_response_tokens,
        "gpu_memory_utilization": rollout.memory_share,
        "enforce_eager": not rollout.graph_mode,
        "enable_chunked_prefill": False,  # derived from the token budget by the rollout
        "enable_prefix_caching": False,
        "free_cache_engine": True,
        "calculate_log_probs": True,
        "log_prob_micro_batch_size_per_gpu": layout.log_prob_micro_batch,
        # Where the files are converted at launch, several answers to a problem are several rows.
        "val_kwargs.n": rollout.validation_samples if config.data.kind == "parquet" else 1,
        "val_kwargs.do_sample": rollout.validation_temperature > 0,
        "val_kwargs.temperature": rollout.validation_temperature,
        "val_kwargs.top_p": rollout.validation_top_p,
        "val_kwargs.top_k": rollout.validation_top_k or -1,
    }
    if config.cluster.device == CUDA:
        # verl's own rollout leaves it off; ours, on NPUs, has it on.
        values["engine_kwargs.vllm.enable_expert_parallel"] = True
    graph = "engine_kwargs.vllm.additional_config.torchair_graph_config."
    values |= {graph + name: value for name, value in graph_options(rollout).items()}
    return {("+" if key.startswith("engine_kwargs") else "") + prefix + key: value for key, value in values.items()}


def _actor(basis: Basis) -> dict[str, Any]:
    config, layout, inputs = basis.config, basis.layout, basis.inputs
    actor, ref = "actor_rollout_ref.actor.", "actor_rollout_ref.ref."
    train = config.train
    values: dict[str, Any] = {
        # The first collectives wait for the slowest rank to load its weights and compile its graph.
        "actor_rollout_ref.nccl_timeout": config.cluster.collective_timeout_s,
        actor + "optim.lr": train.learning_rate,
        actor + "optim.lr_warmup_steps": train.warmup_steps,
        actor + "optim.weight_decay": train.weight_decay,
        actor + "optim.clip_grad": train.max_gradient_norm,
        actor + "ppo_mini_batch_size": layout.update_prompts,
        actor + "ppo_epochs": 1,
        actor + "ppo_micro_batch_size_per_gpu": layout.micro_batch,
        actor + "loss_agg_mode": "token-mean",
        actor + "policy_loss.loss_mode": train.loss_mode,
        actor + "clip_ratio": train.clip_ratio,
        actor + "clip_ratio_low": train.clip_ratio,
        actor + "clip_ratio_high": train.clip_ratio if train.clip_ratio_high is None else train.clip_ratio_high,
        actor + "use_kl_loss": True,
        actor + "kl_loss_coef": train.kl_coefficient,
        actor + "kl_loss_type": train.kl_estimator,
        actor + "entropy_coeff": 0,
        actor + "megatron.seed": config.run.seed,
        actor + "megatron.optimizer_offload": config.actor.optimizer == OFFLOADED,
        ref + "log_prob_micro_batch_size_per_gpu": layout.log_prob_micro_batch,
    }
    for role in (actor, ref):
        values |= {
            role + "megatron.tensor_model_parallel_size": layout.actor_tensor,
            role + "megatron.pipeline_model_parallel_size": layout.actor_pipeline,
            role + "megatron.expert_model_parallel_size": layout.actor_expert,
            role + "megatron.expert_tensor_parallel_size": 1,
            role + "megatron.sequence_parallel": layout.actor_tensor > 1,
            role + "load_weight": inputs.checkpoint is not None,
            # Also where no weights are loaded: it selects the format in which checkpoints are written.
            role + "megatron.use_dist_checkpointing": True,
            role + "megatron.dist_checkpointing_path": None if inputs.checkpoint is None else str(inputs.checkpoint),
            role + "megatron.param_offload": config.actor.offload_parameters,
        }
    prefix = f"+{actor}optim.override_optimizer_config."
    values |= {prefix + key: value for key, value in optimizer_config(config).items()}
    prefix = actor + "megatron.override_transformer_config."
    values |= {_settle(prefix + key): value for key, value in transformer_config(basis).items()}
    return values


def optimizer_config(config: RunConfig) -> dict[str, Any]:
    """verl's `override_optimizer_config`: fields of Megatron-core's OptimizerConfig."""
    actor = config.actor
    values: dict[str, Any] = {"adam_beta2": config.train.adam_beta2}  # verl has `betas`, and does not pass them on
    if actor.optimizer != HOST:
        return values
    return values | {
        "optimizer_cpu_offload": True,
        "optimizer_offload_fraction": actor.host_share,
        # Without it the float32 weights are on the die a second time.
        "use_precision_aware_optimizer": True,
        # Megatron-core 0.12.1 waits for the wrong stream when copies overlap (its pull request 3140).
        "overlap_cpu_optimizer_d2h_h2d": False,
    }


def transformer_config(basis: Basis) -> dict[str, Any]:
    """verl's `override_transformer_config`: what the run file asks for, and what model and MindSpeed need."""
    config, layout = basis.config, basis.layout
    values: dict[str, Any] = {"moe_router_dtype": config.router_type}
    if not layout.even_stages and layout.only_ends_differ:
        values["num_layers_in_first_pipeline_stage"] = layout.first_stage_layers
        # With both ends named, Megatron-core 0.12.1 divides by the number of other stages.
        if layout.actor_pipeline > 2:
            values["num_layers_in_last_pipeline_stage"] = layout.last_stage_layers
    if (recompute := config.actor.recompute) is not None:
        values["recompute_granularity"] = recompute.granularity
        if recompute.granularity == "full":
            values |= {"recompute_method": recompute.method, "recompute_num_layers": recompute.layers}
    if config.actor.moe_profile == "stable":
        values |= STABLE_ROUTER
    return values | basis.added


# Pai-Megatron-Patch's settings for the 671B model in reinforcement learning: the router is trained by the policy loss
# only, so that it stays where pre-training left it. verl 0.6.1 has seq_aux_loss and a bias update rate of 0.001.
STABLE_ROUTER = {
    "moe_router_load_balancing_type": "none",
    "moe_aux_loss_coeff": 0.0,
    "moe_router_bias_update_rate": 0.0,
    "apply_rope_fusion": False,
}
# The keys that verl's configuration has under override_transformer_config; every other one is an addition.
_KNOWN_TRANSFORMER_KEYS = (
    "recompute_granularity",
    "recompute_modules",
    "recompute_method",
    "recompute_num_layers",
    "attention_backend",
)


def _settle(key: str) -> str:
    return key if key.rpartition(".")[2] in _KNOWN_TRANSFORMER_KEYS else "+" + key


def _trainer(basis: Basis) -> dict[str, Any]:
    config, paths = basis.config, basis.paths
    run = config.run
    values = {
        "device": "cuda" if config.cluster.device == CUDA else "npu",
        "nnodes": config.cluster.nodes,
        "n_gpus_per_node": config.cluster.dies_per_node,
        "total_training_steps": run.steps,
        # Epochs bound the loop too; total_training_steps ends it first, however small the data.
        "total_epochs": run.steps,
        "val_before_train": run.validate_every > 0 if run.validate_first is None else run.validate_first,
        "test_freq": min(run.validate_every, run.steps) or -1,
        "save_freq": run.save_every or -1,
        "max_actor_ckpt_to_keep": None,  # the launcher removes the old ones: recipe/launch/retention.py
        "resume_mode": "auto" if run.resume == "auto" else "disable",
        "project_name": "deepseek-v3-grpo",
        "experiment_name": run.name,
        "logger": [*ALWAYS, *run.trackers],
        "validation_data_dir": str(paths.validation),
        "default_local_dir": str(paths.checkpoints),
    }
    return {
        ("+trainer." if key == "validation_data_dir" else "trainer.") + key: value for key, value in values.items()
    } | {"hydra.run.dir": str(paths.run_dir / "logs" / "hydra"), "hydra.output_subdir": "config"}


def _profile(basis: Basis) -> dict[str, Any]:
    profile = basis.config.profile
    if not profile.steps:
        return {}
    values: dict[str, Any] = {
        "global_profiler.tool": "npu",
        "global_profiler.steps": profile.steps,
        "global_profiler.save_path": str(basis.paths.profile),
    }
    for role in PROFILED:
        prefix = f"actor_rollout_ref.{role}.profiler."
        values |= {
            prefix + "enable": True,
            prefix + "ranks": profile.ranks,
            prefix + "tool_config.npu.contents": profile.contents,
            prefix + "tool_config.npu.level": profile.level,
            prefix + "tool_config.npu.analysis": profile.parse,
            prefix + "tool_config.npu.discrete": profile.phases_apart,
        }
    return values


def _cluster_ray(basis: Basis) -> dict[str, Any]:
    config = basis.config
    # The address in full: "auto" would take any Ray that happens to run here.
    return {"+ray_kwargs.ray_init.address": config.cluster.ray_address}


def _own_ray(basis: Basis) -> dict[str, Any]:
    config, paths = basis.config, basis.paths
    prefix = "ray_kwargs.ray_init."
    return {
        prefix + "num_cpus": config.cluster.dies_per_node + SPARE_CPUS,
        f"+{prefix}address": "local",  # never a Ray that happens to run here
        f"+{prefix}_node_ip_address": "127.0.0.1",
        f"+{prefix}_temp_dir": str(paths.ray_temp),
        f"+{prefix}include_dashboard": False,
        f"+{prefix}object_store_memory": OBJECT_STORE_BYTES,
        f"+{prefix}resources.NPU": config.cluster.dies_per_node,
    }
