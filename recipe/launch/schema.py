# SPDX-License-Identifier: Apache-2.0
"""The sections and keys of a run file as dataclasses, with what each means. docs/CONFIG.md is made from this.

Units are in the names; a name without one is a count.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recipe.launch.architecture import KNOWN as ARCHITECTURES
from recipe.launch.typed_toml import key, with_values
from verl_patches.utils.reward_score.verifiers import DEFAULT

ON_POLICY = "npu_on_policy"
LOSS_MODES = ("vanilla", ON_POLICY)
SIM, NPU, CUDA = DEVICES = ("sim", "npu", "cuda")
# Where the optimizer is: one of these, so that no two mechanisms can move the same states.
DIE, OFFLOADED, SWAPPED, HOST = OPTIMIZER_PLACES = ("die", "offloaded", "swapped", "host")
# An address of the block that RFC 5737 keeps for documentation stands for "put yours here".
PLACEHOLDER_HEAD = "192.0.2.1"
# CANN 8.2.RC1 listens on so many ports from HCCL_IF_BASE_PORT on.
HCCL_PORTS = 32
GIB, MIB = 2**30, 2**20


@dataclass(frozen=True, kw_only=True)
class Run:
    """Name, length and files of the run. The deadlines bound the time without a sign of progress."""

    name: str = key("name of the run and of its directory", gives="trainer.experiment_name")
    steps: int = key("steps: rollouts, each with its updates", least=1, gives="trainer.total_training_steps")
    validate_every: int = key("steps between validations; 0: none", gives="trainer.test_freq")
    validate_first: bool | None = key(
        "validate before the first step too; default: yes, unless validate_every is 0",
        None,
        gives="trainer.val_before_train",
    )
    seed: int = key(
        "seed of the tiny model, the order of the data, and the training",
        1,
        most=2**31 - 1,
        gives="data.seed, actor.megatron.seed",
    )
    save_every: int = key("steps between checkpoints; 0: none", 0, gives="trainer.save_freq")
    keep_checkpoints: int = key(
        "so many of the latest checkpoints are kept; verl removes the oldest before it writes the next, so that with 1 "
        "an end meanwhile would leave none",
        2,
        least=2,
        gives="trainer.max_actor_ckpt_to_keep",
    )
    resume: str = key(
        "auto: go on from the last checkpoint of this run, if there is one; never: start anew",
        "auto",
        choices=("auto", "never"),
        gives="trainer.resume_mode",
    )
    output_dir: str | None = key(
        "directory that holds the run's directory, the same on every node; default: $RECIPE_RUNS, else runs/",
        None,
        gives="RECIPE_RUN_DIR, VERL_FILE_LOGGER_PATH, trainer.validation_data_dir",
    )
    checkpoint_dir: str | None = key(
        "directory of the run's checkpoints, the same on every node; default: checkpoints/ in the run's directory",
        None,
        gives="trainer.default_local_dir",
    )
    setup_deadline_s: int = key("longest silence until the first step", 600, unit="s", least=1)
    step_deadline_s: int = key("longest silence after that", 240, unit="s", least=1)


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """The machines. A die is what Ray counts as one `NPU` (or `GPU`) and torch as one device."""

    device: str = key("sim: simulated NPUs of this machine; npu: Ascend; cuda: GPUs", SIM, choices=DEVICES)
    nodes: int = key("machines", least=1, gives="trainer.nnodes")
    dies_per_node: int = key("dies of each machine", least=1, gives="trainer.n_gpus_per_node")
    hbm_gib_per_die: float = key("memory of a die (sim: [simulator] hbm_mib)", 64.0, unit="GiB", least=1)
    host_memory_gib_per_node: float | None = key("memory of a machine; default: not checked", None, unit="GiB", least=1)
    head: str | None = key(
        "address or name of the head node; sim: this machine, and not given", None, gives="ray_kwargs.ray_init.address"
    )
    hosts: list[str] = key(
        "addresses or names of all nodes, the head's too, so that a missing one can be named; default: only counted", []
    )
    interface: str | None = key(
        "network interface between the nodes, where it has the same name on all; default: the one that leads to the "
        "head, found on every node",
        None,
        gives="HCCL_SOCKET_IFNAME, GLOO_SOCKET_IFNAME, TP_SOCKET_IFNAME",
    )
    ray_port: int = key(
        "port of the head node's Ray", 6379, least=1024, most=65535, gives="ray_kwargs.ray_init.address"
    )
    dashboard_port: int = key("port of Ray's dashboard, on 127.0.0.1 of the head node", 8265, least=1024, most=65535)
    hccl_base_port: int = key(
        f"first of the {HCCL_PORTS} ports that HCCL listens on on every node; above those that Linux hands out (to "
        "60999), and apart from Ray's",
        61000,
        least=1024,
        most=65536 - HCCL_PORTS,
        gives="HCCL_IF_BASE_PORT",
    )
    wait_deadline_s: int = key("how long the head waits for the other nodes", 600, unit="s", least=1)
    collective_timeout_s: int = key(
        "longest time of one collective; the first one waits for the slowest rank to compile its graph",
        3600,
        unit="s",
        least=120,
        most=7200,
        gives="HCCL_CONNECT_TIMEOUT, HCCL_EXEC_TIMEOUT, nccl_timeout",
    )

    @property
    def own_ray(self) -> bool:
        """Whether the driver starts a Ray of its own, on loopback, instead of joining that of the nodes."""
        return self.device == SIM and self.nodes == 1

    @property
    def ray_address(self) -> str:
        """Where the nodes of a cluster find the head's Ray."""
        head = self.head or "127.0.0.1"
        return f"[{head}]:{self.ray_port}" if ":" in head else f"{head}:{self.ray_port}"


@dataclass(frozen=True, kw_only=True)
class Simulator:
    """The simulated devices."""

    hbm_mib: int = key("memory of a simulated die", 256, unit="MiB", least=1, gives="NPU_SIM_HBM")


@dataclass(frozen=True, kw_only=True)
class Model:
    """What is trained."""

    kind: str = key(
        "tiny: a model made here; path: the weights at `checkpoint`; random_init: the architecture of `path` without "
        "weights, to measure speed",
        "tiny",
        choices=("tiny", "path", "random_init"),
        gives="actor.load_weight, ref.load_weight",
    )
    path: str | None = key("Hugging Face directory with config.json and tokenizer", None, gives="model.path")
    checkpoint: str | None = key(
        "Megatron torch_dist checkpoint of the same model (scripts/convert_hf_to_mcore.py); sim: made at launch if not "
        "given",
        None,
        gives="actor.megatron.dist_checkpointing_path, ref.megatron.dist_checkpointing_path",
    )
    architecture: str | None = key(
        "what to assume where `path` cannot be seen, as on a laptop; where it can, config.json must agree",
        None,
        choices=tuple(ARCHITECTURES),
        gives="moe_router_num_groups, moe_router_group_topk",
    )
    warm_start_steps: int | None = key("supervised steps of the tiny model, instead of its own number", None)


@dataclass(frozen=True, kw_only=True)
class Data:
    """Problems, and how long they and their answers may be."""

    kind: str = key(
        "arithmetic: the sums that go with the tiny model; json: one DeepScaleR-schema file, converted at launch; "
        "parquet: two files of scripts/json_to_parquet.py",
        "arithmetic",
        choices=("arithmetic", "json", "parquet"),
    )
    path: str | None = key("kind json: the file", None)
    train_path: str | None = key("kind parquet: problems to learn from", None, gives="data.train_files")
    validation_path: str | None = key("kind parquet: problems to validate on", None, gives="data.val_files")
    template: str = key("prompt template: a name of data/templates.toml, FILE.toml or FILE.toml:NAME", "r1_zero")
    chat_template: str | None = key(
        "file of the chat template (Jinja) that renders the prompts; default: the tokenizer's own, or "
        "data/chat_template.jinja where it has none",
        None,
        gives="data.apply_chat_template_kwargs.chat_template, model.custom_chat_template",
    )
    max_prompt_tokens: int = key(
        "longer prompts are left out; sim: the longest prompt, if shorter, sets the padded length",
        unit="tokens",
        least=1,
        gives="data.max_prompt_length",
    )
    max_response_tokens: int = key(
        "longest answer", unit="tokens", least=1, gives="data.max_response_length, rollout.max_model_len"
    )
    train_share: float = key("kind json: share of the problems to learn from", 0.9, least=0, most=1)
    validation_problems: int = key(
        "so many of the first problems are validated; 0: all", 64, gives="data.val_max_samples"
    )


@dataclass(frozen=True, kw_only=True)
class Reward:
    """The rule that pays; docs/REWARDS.md has them all."""

    verifier: str = key("name of the rule", DEFAULT, gives="reward_kwargs.verifier")
    mix: dict[str, float] = key(
        "weights of several rules by their names, instead of `verifier`", {}, gives="reward_kwargs.mix"
    )
    workers: int = key(
        "processes that grade; 0: the trainer's own",
        0,
        gives="reward_kwargs.workers, reward_model.reward_manager, custom_reward_function.name",
    )
    tier3: str | None = key(
        "what is asked about answers that the grammar cannot read: math_verify; default: nothing",
        None,
        gives="reward_kwargs.tier3",
    )
    refuse_copied: bool = key(
        "an answer that hands in work of the problem undone earns nothing; needs the problem in extra_info, where "
        "scripts/json_to_parquet.py puts it",
        True,
        gives="reward_kwargs.refuse_copied",
    )
    path: str = key(
        "another file with compute_score and compute_scores, relative to the repository",
        "verl_patches/utils/reward_score/r1_zero.py",
        gives="custom_reward_function.path",
    )


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """The vLLM side. Engines: one per tensor-parallel group; an instance is the engines that share their experts."""

    tensor_parallel: int = key("dies of one engine", least=1, gives="rollout.tensor_model_parallel_size, VLLM_DP_SIZE")
    instances: int = key(
        "instances; the experts of each are spread over all its dies",
        1,
        least=1,
        gives="VLLM_DP_SIZE",
    )
    samples_per_prompt: int = key(
        "answers to each problem (GRPO's group)", least=1, gives="rollout.n, rollout.max_num_seqs"
    )
    max_batched_tokens: int = key(
        "most tokens of one engine step; below the longest sequence, prompts go in pieces",
        unit="tokens",
        least=1,
        gives="rollout.max_num_batched_tokens",
    )
    memory_share: float = key(
        "share of a die's memory for weights and KV cache", least=0.01, most=1, gives="rollout.gpu_memory_utilization"
    )
    temperature: float = key("sampling temperature", 1.0, least=0.01, gives="rollout.temperature")
    top_p: float = key("nucleus sampling: probability mass", 1.0, least=0.01, most=1, gives="rollout.top_p")
    top_k: int = key("sampling from the k likeliest tokens; 0: from all", 0, gives="rollout.top_k")
    ignore_eos: bool = key(
        "every answer goes to max_response_tokens, to measure speed", False, gives="rollout.ignore_eos"
    )
    validation_samples: int = key(
        "answers to each validation problem; the score is their mean", 1, least=1, gives="rollout.val_kwargs.n"
    )
    validation_temperature: float = key(
        "0: the likeliest token",
        1.0,
        least=0,
        gives="rollout.val_kwargs.temperature, rollout.val_kwargs.do_sample",
    )
    validation_top_p: float = key("as top_p", 1.0, least=0.01, most=1, gives="rollout.val_kwargs.top_p")
    validation_top_k: int = key("as top_k", 0, gives="rollout.val_kwargs.top_k")
    graph_mode: bool = key("decode with compiled graphs", False, gives="rollout.enforce_eager")
    kv_nz: bool = key(
        "graph mode keeps the KV cache in the NZ layout; prompts then never go in pieces",
        False,
        gives="torchair_graph_config.enable_kv_nz",
    )
    dp_sync_on_device: bool = key(
        "what the engines tell each other before every step is reduced by the dies, not by the hosts",
        False,
        gives="RECIPE_DP_SYNC_ON_DEVICE",
    )


@dataclass(frozen=True, kw_only=True)
class Recompute:
    """Activations that the backward pass computes again."""

    granularity: str = key(
        "full: whole layers; selective: attention only", choices=("full", "selective"), gives="recompute_granularity"
    )
    method: str | None = key(
        "full: uniform: groups of `layers` layers; block: the first `layers` layers of a stage",
        None,
        choices=("uniform", "block"),
        gives="recompute_method",
    )
    layers: int | None = key("full: see method", None, least=1, gives="recompute_num_layers")


@dataclass(frozen=True, kw_only=True)
class Actor:
    """The Megatron side; the reference policy is laid out alike."""

    tensor_parallel: int = key(
        "1 with MindSpeed, which refuses more for multi-latent attention",
        least=1,
        gives="actor.megatron.tensor_model_parallel_size, ref.megatron.tensor_model_parallel_size",
    )
    expert_parallel: int = key(
        "dies that share the experts of a stage",
        least=1,
        gives="actor.megatron.expert_model_parallel_size, ref.megatron.expert_model_parallel_size",
    )
    stage_layers: list[int] = key(
        "layers of each pipeline stage; only the first and last may differ",
        least=1,
        gives="num_layers_in_first_pipeline_stage, num_layers_in_last_pipeline_stage, pipeline_num_transformer_layers",
    )
    micro_batch_tokens: int = key(
        "most padded tokens of a rank in a pass of an update",
        unit="tokens",
        least=1,
        gives="actor.ppo_micro_batch_size_per_gpu",
    )
    log_prob_micro_batch_tokens: int | None = key(
        "the same for passes without gradients; default: micro_batch_tokens",
        None,
        unit="tokens",
        least=1,
        gives="rollout.log_prob_micro_batch_size_per_gpu, ref.log_prob_micro_batch_size_per_gpu",
    )
    recompute: Recompute | None = key("activation recomputation; default: none", None)
    offload_parameters: bool = key(
        "weights to host memory, and the memory of the gradients freed, while not needed",
        True,
        gives="actor.megatron.param_offload, ref.megatron.param_offload",
    )
    optimizer: str = key(
        "where it is. die: always there; offloaded: verl moves it to host memory while not needed; swapped: MindSpeed "
        "keeps it in pinned host memory and brings it in piece by piece; host: Megatron-core keeps it in host memory, "
        "and the host's cores update the weights",
        OFFLOADED,
        choices=OPTIMIZER_PLACES,
        gives="actor.megatron.optimizer_offload, swap_optimizer, actor.optim.override_optimizer_config",
    )
    optimizer_host_share: float | None = key(
        'optimizer = "host": share of the elements that the host holds, the others stay on the die; default: all',
        None,
        least=0.01,
        most=1,
        gives="actor.optim.override_optimizer_config.optimizer_offload_fraction",
    )
    moe_profile: str = key(
        "default: verl's router settings; stable: Pai-Megatron-Patch's, with no load balancing loss, a fixed router "
        "bias, the router in float32, and no fused rotary embedding",
        "default",
        choices=("default", "stable"),
        gives="moe_router_load_balancing_type, moe_aux_loss_coeff, moe_router_bias_update_rate, moe_router_dtype, "
        "apply_rope_fusion",
    )

    @property
    def host_share(self) -> float:
        """The share of the optimizer's elements that the host holds and updates."""
        if self.optimizer != HOST:
            return 0.0
        return 1.0 if self.optimizer_host_share is None else self.optimizer_host_share


@dataclass(frozen=True, kw_only=True)
class Train:
    """The optimizer and the loss.

    `loss_mode` "vanilla": PPO's clipped objective, with a forward pass for the old log-probabilities; "npu_on_policy":
    the same loss without that pass, as the old are the current ones. The rollout's own log-probabilities, which could
    only be compared with the old ones, are then not recorded.
    """

    prompts_per_step: int = key("problems of one step", least=1, gives="data.train_batch_size")
    updates_per_step: int = key(
        "optimizer steps on the samples of one step; above 1 the later ones are off policy",
        1,
        least=1,
        gives="actor.ppo_mini_batch_size",
    )
    learning_rate: float = key("constant after the warm-up", least=0, gives="actor.optim.lr")
    warmup_steps: int = key("updates until the learning rate is reached", 0, gives="actor.optim.lr_warmup_steps")
    weight_decay: float = key("Adam's", 0.01, least=0, gives="actor.optim.weight_decay")
    adam_beta2: float = key(
        "Adam's second coefficient; the first is 0.9",
        0.999,
        least=0,
        most=1,
        gives="actor.optim.override_optimizer_config.adam_beta2",
    )
    max_gradient_norm: float = key(
        "longer gradients are shortened to this", 1.0, least=0, gives="actor.optim.clip_grad"
    )
    clip_ratio: float = key(
        "PPO's clip of the probability ratio", 0.2, least=0, gives="actor.clip_ratio, actor.clip_ratio_low"
    )
    clip_ratio_high: float | None = key("its upper side, if another", None, least=0, gives="actor.clip_ratio_high")
    kl_coefficient: float = key(
        "weight of the KL divergence from the reference", 0.001, least=0, gives="actor.kl_loss_coef"
    )
    kl_estimator: str = key(
        "its estimator per token", "low_var_kl", choices=("low_var_kl", "kl", "mse", "abs"), gives="actor.kl_loss_type"
    )
    loss_mode: str = key(
        f"vanilla: with a pass for the old log-probabilities; {ON_POLICY}: without, for one update a step",
        "vanilla",
        choices=LOSS_MODES,
        gives="actor.policy_loss.loss_mode, rollout.calculate_log_probs",
    )


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """One run file."""

    run: Run
    cluster: Cluster
    data: Data
    rollout: Rollout
    actor: Actor
    train: Train
    reward: Reward = Reward()
    model: Model = Model()
    simulator: Simulator = Simulator()
    environment: dict[str, str] = key("more variables for every process; none that is derived", {})

    @property
    def simulated(self) -> bool:
        return self.cluster.device == SIM

    @property
    def paths(self) -> dict[str, str]:
        """The paths that the run file gives, by their keys."""
        named = {
            "[model] path": self.model.path,
            "[model] checkpoint": self.model.checkpoint,
            "[data] path": self.data.path,
            "[data] train_path": self.data.train_path,
            "[data] validation_path": self.data.validation_path,
            "[data] chat_template": self.data.chat_template,
            "[run] output_dir": self.run.output_dir,
            "[run] checkpoint_dir": self.run.checkpoint_dir,
        }
        return {name: value for name, value in named.items() if value is not None}

    @property
    def hbm_bytes_per_die(self) -> int:
        return self.simulator.hbm_mib * MIB if self.simulated else int(self.cluster.hbm_gib_per_die * GIB)

    def with_run(self, **changes: Any) -> RunConfig:
        """The same run with other values in `[run]`, from options of those names; None changes nothing.

        Raises:
            ConfigError: a value of another type, or beyond the key's limits.
        """
        given = {key: value for key, value in changes.items() if value is not None}
        return dataclasses.replace(self, run=with_values(self.run, given, "--"))

    def with_json_data(self, path: Path, max_response_tokens: int) -> RunConfig:
        """The same run on the problems of a DeepScaleR-schema file, with room for longer answers."""
        data = dataclasses.replace(
            self.data,
            kind="json",
            path=str(path),
            train_path=None,
            validation_path=None,
            max_response_tokens=max(max_response_tokens, self.data.max_response_tokens),
        )
        return dataclasses.replace(self, data=data)
