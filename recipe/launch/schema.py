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
from recipe.launch.typed_toml import CHANGES, FREE, IMPOSSIBLE, key, with_values
from recipe.reward.verifiers import DEFAULT
from recipe.watch.rule import ACTIONS, OFF, STOP_RUN, WARN

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

    name: str = key("name of the run and of its directory", gives="trainer.experiment_name", on_resume=FREE)
    steps: int = key(
        "steps: rollouts, each with its updates", least=1, gives="trainer.total_training_steps", on_resume=FREE
    )
    validate_every: int = key("steps between validations; 0: none", gives="trainer.test_freq", on_resume=FREE)
    validate_first: bool | None = key(
        "validate before the first step too; default: yes, unless validate_every is 0",
        None,
        gives="trainer.val_before_train",
        on_resume=FREE,
    )
    seed: int = key(
        "seed of the tiny model, the order of the data, the training, and what the rollout samples",
        1,
        most=2**31 - 1,
        gives="data.seed, actor.megatron.seed",
        on_resume=CHANGES,
    )
    save_every: int = key("steps between checkpoints; 0: none", 0, gives="trainer.save_freq", on_resume=FREE)
    keep_checkpoints: int = key(
        "so many of the newest whole checkpoints stay, of all attempts together, and beside them the one with the best "
        "validation score and, for each rule of the watch, the last one before it was broken; the oldest goes after "
        "the next is whole, so that the disk needs room for one more",
        2,
        least=1,
        on_resume=FREE,
    )
    resume: str = key(
        "auto: go on from the last checkpoint of this run, if there is one; never: start anew",
        "auto",
        choices=("auto", "never"),
        gives="trainer.resume_mode",
        on_resume=FREE,
    )
    output_dir: str | None = key(
        "directory that holds the run's directory, the same on every node; default: $RECIPE_RUNS, else runs/",
        None,
        gives="RECIPE_RUN_DIR, VERL_FILE_LOGGER_PATH, trainer.validation_data_dir",
        on_resume=FREE,
    )
    checkpoint_dir: str | None = key(
        "directory of the run's checkpoints, the same on every node; default: checkpoints/ in the run's directory",
        None,
        gives="trainer.default_local_dir",
        on_resume=FREE,
    )
    setup_deadline_s: int = key("longest silence until the first step", 600, unit="s", least=1, on_resume=FREE)
    step_deadline_s: int = key("longest silence after that", 240, unit="s", least=1, on_resume=FREE)


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """The machines. A die is what Ray counts as one `NPU` (or `GPU`) and torch as one device."""

    device: str = key(
        "sim: simulated NPUs of this machine; npu: Ascend; cuda: GPUs", SIM, choices=DEVICES, on_resume=CHANGES
    )
    nodes: int = key("machines", least=1, gives="trainer.nnodes", on_resume=FREE)
    dies_per_node: int = key("dies of each machine", least=1, gives="trainer.n_gpus_per_node", on_resume=FREE)
    hbm_gib_per_die: float = key(
        "memory of a die (sim: [simulator] hbm_mib)", 64.0, unit="GiB", least=1, on_resume=FREE
    )
    host_memory_gib_per_node: float | None = key(
        "memory of a machine; default: not checked", None, unit="GiB", least=1, on_resume=FREE
    )
    head: str | None = key(
        "address or name of the head node; sim: this machine, and not given",
        None,
        gives="ray_kwargs.ray_init.address",
        on_resume=FREE,
    )
    hosts: list[str] = key(
        "addresses or names of all nodes, the head's too, so that a missing one can be named; default: only counted",
        [],
        on_resume=FREE,
    )
    interface: str | None = key(
        "network interface between the nodes, where it has the same name on all; default: the one that leads to the "
        "head, found on every node",
        None,
        gives="HCCL_SOCKET_IFNAME, GLOO_SOCKET_IFNAME, TP_SOCKET_IFNAME",
        on_resume=FREE,
    )
    ray_port: int = key(
        "port of the head node's Ray",
        6379,
        least=1024,
        most=65535,
        gives="ray_kwargs.ray_init.address",
        on_resume=FREE,
    )
    dashboard_port: int = key(
        "port of Ray's dashboard, on 127.0.0.1 of the head node", 8265, least=1024, most=65535, on_resume=FREE
    )
    hccl_base_port: int = key(
        f"first of the {HCCL_PORTS} ports that HCCL listens on on every node; above those that Linux hands out (to "
        "60999), and apart from Ray's",
        61000,
        least=1024,
        most=65536 - HCCL_PORTS,
        gives="HCCL_IF_BASE_PORT",
        on_resume=FREE,
    )
    wait_deadline_s: int = key("how long the head waits for the other nodes", 600, unit="s", least=1, on_resume=FREE)
    collective_timeout_s: int = key(
        "longest time of one collective; the first one waits for the slowest rank to compile its graph",
        3600,
        unit="s",
        least=120,
        most=7200,
        gives="HCCL_CONNECT_TIMEOUT, HCCL_EXEC_TIMEOUT, nccl_timeout",
        on_resume=FREE,
    )

    @property
    def own_ray(self) -> bool:
        """Whether the driver starts a Ray of its own, on loopback, instead of joining that of the nodes."""
        return self.device == SIM and self.nodes == 1

    @property
    def ray_address(self) -> str:
        """Where the nodes of a cluster find the head's Ray."""
        return f"{self.head or '127.0.0.1'}:{self.ray_port}"


@dataclass(frozen=True, kw_only=True)
class Simulator:
    """The simulated devices."""

    hbm_mib: int = key("memory of a simulated die", 256, unit="MiB", least=1, gives="NPU_SIM_HBM", on_resume=FREE)


@dataclass(frozen=True, kw_only=True)
class Model:
    """What is trained."""

    kind: str = key(
        "tiny: a model made here; path: the weights at `checkpoint`; random_init: the architecture of `path` without "
        "weights, to measure speed",
        "tiny",
        choices=("tiny", "path", "random_init"),
        gives="actor.load_weight, ref.load_weight",
        on_resume=IMPOSSIBLE,
    )
    path: str | None = key(
        "Hugging Face directory with config.json and tokenizer", None, gives="model.path", on_resume=IMPOSSIBLE
    )
    checkpoint: str | None = key(
        "Megatron torch_dist checkpoint of the same model (scripts/convert_hf_to_mcore.py); sim: made at launch if not "
        "given",
        None,
        gives="actor.megatron.dist_checkpointing_path, ref.megatron.dist_checkpointing_path",
        on_resume=CHANGES,
    )
    architecture: str | None = key(
        "what to assume where `path` cannot be seen, as on a laptop; where it can, config.json must agree",
        None,
        choices=tuple(ARCHITECTURES),
        gives="moe_router_num_groups, moe_router_group_topk",
        on_resume=IMPOSSIBLE,
    )
    warm_start_steps: int | None = key(
        "supervised steps of the tiny model, instead of its own number", None, on_resume=IMPOSSIBLE
    )


@dataclass(frozen=True, kw_only=True)
class Data:
    """Problems, and how long they and their answers may be."""

    kind: str = key(
        "arithmetic: the sums that go with the tiny model; json: one DeepScaleR-schema file, converted at launch; "
        "parquet: two files of scripts/json_to_parquet.py",
        "arithmetic",
        choices=("arithmetic", "json", "parquet"),
        on_resume=CHANGES,
    )
    path: str | None = key("kind json: the file", None, on_resume=CHANGES)
    train_path: str | None = key(
        "kind parquet: problems to learn from", None, gives="data.train_files", on_resume=CHANGES
    )
    validation_path: str | None = key(
        "kind parquet: problems to validate on", None, gives="data.val_files", on_resume=CHANGES
    )
    template: str = key(
        "prompt template: a name of data/templates.toml, FILE.toml or FILE.toml:NAME", "r1_zero", on_resume=CHANGES
    )
    chat_template: str | None = key(
        "file of the chat template (Jinja) that renders the prompts; default: the tokenizer's own, or "
        "data/chat_template.jinja where it has none",
        None,
        gives="data.apply_chat_template_kwargs.chat_template, model.custom_chat_template",
        on_resume=CHANGES,
    )
    max_prompt_tokens: int = key(
        "longer prompts are left out; sim: the longest prompt, if shorter, sets the padded length",
        unit="tokens",
        least=1,
        gives="data.max_prompt_length",
        on_resume=CHANGES,
    )
    max_response_tokens: int = key(
        "longest answer",
        unit="tokens",
        least=1,
        gives="data.max_response_length, rollout.max_model_len",
        on_resume=CHANGES,
    )
    train_share: float = key("kind json: share of the problems to learn from", 0.9, least=0, most=1, on_resume=CHANGES)
    validation_problems: int = key(
        "so many of the first problems are validated; 0: all",
        64,
        gives="data.val_max_samples",
        on_resume=CHANGES,
    )


@dataclass(frozen=True, kw_only=True)
class Reward:
    """The rule that pays; docs/REWARDS.md has them all."""

    verifier: str = key("name of the rule", DEFAULT, gives="reward_kwargs.verifier", on_resume=CHANGES)
    mix: dict[str, float] = key(
        "weights of several rules by their names, instead of `verifier`",
        {},
        gives="reward_kwargs.mix",
        on_resume=CHANGES,
    )
    workers: int = key(
        "processes that grade; 0: the trainer's own",
        0,
        gives="reward_kwargs.workers, reward_model.reward_manager, custom_reward_function.name",
        on_resume=FREE,
    )
    tier3: str | None = key(
        "what is asked about answers that the grammar cannot read: math_verify; default: nothing",
        None,
        gives="reward_kwargs.tier3",
        on_resume=CHANGES,
    )
    refuse_copied: bool = key(
        "an answer that hands in work of the problem undone earns nothing; needs the problem in extra_info, where "
        "scripts/json_to_parquet.py puts it",
        True,
        gives="reward_kwargs.refuse_copied",
        on_resume=CHANGES,
    )
    path: str = key(
        "another file with compute_score and compute_scores, relative to the repository",
        "verl_patches/utils/reward_score/r1_zero.py",
        gives="custom_reward_function.path",
        on_resume=CHANGES,
    )


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """The vLLM side. Engines: one per tensor-parallel group; an instance is the engines that share their experts."""

    tensor_parallel: int = key(
        "dies of one engine", least=1, gives="rollout.tensor_model_parallel_size, VLLM_DP_SIZE", on_resume=FREE
    )
    instances: int = key(
        "instances; the experts of each are spread over all its dies",
        1,
        least=1,
        gives="VLLM_DP_SIZE",
        on_resume=FREE,
    )
    samples_per_prompt: int = key(
        "answers to each problem (GRPO's group)",
        least=1,
        gives="rollout.n, rollout.max_num_seqs",
        on_resume=CHANGES,
    )
    max_batched_tokens: int = key(
        "most tokens of one engine step; below the longest sequence, prompts go in pieces",
        unit="tokens",
        least=1,
        gives="rollout.max_num_batched_tokens",
        on_resume=FREE,
    )
    memory_share: float = key(
        "share of a die's memory for weights and KV cache",
        least=0.01,
        most=1,
        gives="rollout.gpu_memory_utilization",
        on_resume=FREE,
    )
    temperature: float = key("sampling temperature", 1.0, least=0.01, gives="rollout.temperature", on_resume=CHANGES)
    top_p: float = key(
        "nucleus sampling: probability mass", 1.0, least=0.01, most=1, gives="rollout.top_p", on_resume=CHANGES
    )
    top_k: int = key("sampling from the k likeliest tokens; 0: from all", 0, gives="rollout.top_k", on_resume=CHANGES)
    ignore_eos: bool = key(
        "every answer goes to max_response_tokens, to measure speed",
        False,
        gives="rollout.ignore_eos",
        on_resume=CHANGES,
    )
    validation_samples: int = key(
        "answers to each validation problem; the score is their mean",
        1,
        least=1,
        gives="rollout.val_kwargs.n",
        on_resume=CHANGES,
    )
    validation_temperature: float = key(
        "0: the likeliest token",
        1.0,
        least=0,
        gives="rollout.val_kwargs.temperature, rollout.val_kwargs.do_sample",
        on_resume=CHANGES,
    )
    validation_top_p: float = key(
        "as top_p", 1.0, least=0.01, most=1, gives="rollout.val_kwargs.top_p", on_resume=CHANGES
    )
    validation_top_k: int = key("as top_k", 0, gives="rollout.val_kwargs.top_k", on_resume=CHANGES)
    graph_mode: bool = key("decode with compiled graphs", False, gives="rollout.enforce_eager", on_resume=FREE)
    kv_nz: bool = key(
        "graph mode keeps the KV cache in the NZ layout; prompts then never go in pieces",
        False,
        gives="torchair_graph_config.enable_kv_nz",
        on_resume=FREE,
    )
    dp_sync_on_device: bool = key(
        "what the engines tell each other before every step is reduced by the dies, not by the hosts",
        False,
        gives="RECIPE_DP_SYNC_ON_DEVICE",
        on_resume=FREE,
    )


@dataclass(frozen=True, kw_only=True)
class Recompute:
    """Activations that the backward pass computes again."""

    granularity: str = key(
        "full: whole layers; selective: attention only",
        choices=("full", "selective"),
        gives="recompute_granularity",
        on_resume=FREE,
    )
    method: str | None = key(
        "full: uniform: groups of `layers` layers; block: the first `layers` layers of a stage",
        None,
        choices=("uniform", "block"),
        gives="recompute_method",
        on_resume=FREE,
    )
    layers: int | None = key("full: see method", None, least=1, gives="recompute_num_layers", on_resume=FREE)


@dataclass(frozen=True, kw_only=True)
class Actor:
    """The Megatron side; the reference policy is laid out alike."""

    tensor_parallel: int = key(
        "1 with MindSpeed, which refuses more for multi-latent attention",
        least=1,
        gives="actor.megatron.tensor_model_parallel_size, ref.megatron.tensor_model_parallel_size",
        on_resume=FREE,
    )
    expert_parallel: int = key(
        "dies that share the experts of a stage",
        least=1,
        gives="actor.megatron.expert_model_parallel_size, ref.megatron.expert_model_parallel_size",
        on_resume=FREE,
    )
    stage_layers: list[int] = key(
        "layers of each pipeline stage; only the first and last may differ",
        least=1,
        gives="num_layers_in_first_pipeline_stage, num_layers_in_last_pipeline_stage, pipeline_num_transformer_layers",
        on_resume=FREE,
    )
    micro_batch_tokens: int = key(
        "most padded tokens of a rank in a pass of an update",
        unit="tokens",
        least=1,
        gives="actor.ppo_micro_batch_size_per_gpu",
        on_resume=FREE,
    )
    log_prob_micro_batch_tokens: int | None = key(
        "the same for passes without gradients; default: micro_batch_tokens",
        None,
        unit="tokens",
        least=1,
        gives="rollout.log_prob_micro_batch_size_per_gpu, ref.log_prob_micro_batch_size_per_gpu",
        on_resume=FREE,
    )
    recompute: Recompute | None = key("activation recomputation; default: none", None, on_resume=FREE)
    offload_parameters: bool = key(
        "weights to host memory, and the memory of the gradients freed, while not needed",
        True,
        gives="actor.megatron.param_offload, ref.megatron.param_offload",
        on_resume=FREE,
    )
    optimizer: str = key(
        "where it is. die: always there; offloaded: verl moves it to host memory while not needed; swapped: MindSpeed "
        "keeps it in pinned host memory and brings it in piece by piece; host: Megatron-core keeps it in host memory, "
        "and the host's cores update the weights",
        OFFLOADED,
        choices=OPTIMIZER_PLACES,
        gives="actor.megatron.optimizer_offload, swap_optimizer, actor.optim.override_optimizer_config",
        on_resume=FREE,
    )
    optimizer_host_share: float | None = key(
        'optimizer = "host": share of the elements that the host holds, the others stay on the die; default: all',
        None,
        least=0.01,
        most=1,
        gives="actor.optim.override_optimizer_config.optimizer_offload_fraction",
        on_resume=FREE,
    )
    moe_profile: str = key(
        "default: verl's router settings; stable: Pai-Megatron-Patch's, with no load balancing loss, a fixed router "
        "bias, the router in float32, and no fused rotary embedding",
        "default",
        choices=("default", "stable"),
        gives="moe_router_load_balancing_type, moe_aux_loss_coeff, moe_router_bias_update_rate, moe_router_dtype, "
        "apply_rope_fusion",
        on_resume=CHANGES,
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

    prompts_per_step: int = key("problems of one step", least=1, gives="data.train_batch_size", on_resume=CHANGES)
    updates_per_step: int = key(
        "optimizer steps on the samples of one step; above 1 the later ones are off policy",
        1,
        least=1,
        gives="actor.ppo_mini_batch_size",
        on_resume=CHANGES,
    )
    learning_rate: float = key("constant after the warm-up", least=0, gives="actor.optim.lr", on_resume=CHANGES)
    warmup_steps: int = key(
        "updates until the learning rate is reached", 0, gives="actor.optim.lr_warmup_steps", on_resume=CHANGES
    )
    weight_decay: float = key("Adam's", 0.01, least=0, gives="actor.optim.weight_decay", on_resume=CHANGES)
    adam_beta2: float = key(
        "Adam's second coefficient; the first is 0.9",
        0.999,
        least=0,
        most=1,
        gives="actor.optim.override_optimizer_config.adam_beta2",
        on_resume=CHANGES,
    )
    max_gradient_norm: float = key(
        "longer gradients are shortened to this",
        1.0,
        least=0,
        gives="actor.optim.clip_grad",
        on_resume=CHANGES,
    )
    clip_ratio: float = key(
        "PPO's clip of the probability ratio",
        0.2,
        least=0,
        gives="actor.clip_ratio, actor.clip_ratio_low",
        on_resume=CHANGES,
    )
    clip_ratio_high: float | None = key(
        "its upper side, if another", None, least=0, gives="actor.clip_ratio_high", on_resume=CHANGES
    )
    kl_coefficient: float = key(
        "weight of the KL divergence from the reference",
        0.001,
        least=0,
        gives="actor.kl_loss_coef",
        on_resume=CHANGES,
    )
    kl_estimator: str = key(
        "its estimator per token",
        "low_var_kl",
        choices=("low_var_kl", "kl", "mse", "abs"),
        gives="actor.kl_loss_type",
        on_resume=CHANGES,
    )
    loss_mode: str = key(
        f"vanilla: with a pass for the old log-probabilities; {ON_POLICY}: without, for one update a step",
        "vanilla",
        choices=LOSS_MODES,
        gives="actor.policy_loss.loss_mode, rollout.calculate_log_probs",
        on_resume=CHANGES,
    )


@dataclass(frozen=True, kw_only=True)
class Watch:
    """The watch over the training: what each rule does when a step has broken it so many times in a row.

    stop: it warns, and later ends the run with exit code 3; warn: it only warns; off: it says nothing. docs/WATCH.md
    has the rules, their reasons and their numbers of steps.
    """

    enabled: bool = key("false: all rules are off", True, on_resume=FREE)
    not_finite: str = key(
        "loss, gradient norm, KL or reward not a number or infinite", STOP_RUN, choices=ACTIONS, on_resume=FREE
    )
    zero_gradient: str = key("gradient norm 0", STOP_RUN, choices=ACTIONS, on_resume=FREE)
    equal_rewards: str = key("all rewards equal, and not the highest seen", STOP_RUN, choices=ACTIONS, on_resume=FREE)
    solved: str = key("all rewards equal to the highest seen", WARN, choices=(WARN, OFF), on_resume=FREE)
    entropy_high: str = key("entropy near the logarithm of the vocabulary", STOP_RUN, choices=ACTIONS, on_resume=FREE)
    entropy_high_share: float = key("near: this share of it", 0.9, least=0.1, most=1, on_resume=FREE)
    entropy_low: str = key("entropy near 0", WARN, choices=ACTIONS, on_resume=FREE)
    entropy_low_nats: float = key("near: below this, per token", 0.01, unit="nats", least=0, on_resume=FREE)
    cut_off: str = key("many answers cut at the length limit", WARN, choices=ACTIONS, on_resume=FREE)
    cut_off_share: float = key("many: more than this share", 0.5, least=0, most=1, on_resume=FREE)
    length_collapse: str = key("answers much shorter than they were", WARN, choices=ACTIONS, on_resume=FREE)
    length_collapse_share: float = key("much: below this share of the longest", 0.25, least=0, most=1, on_resume=FREE)
    reward_drop: str = key("reward far below its best", STOP_RUN, choices=ACTIONS, on_resume=FREE)
    reward_drop_share: float = key("far: by more than this share of it", 0.5, least=0, on_resume=FREE)
    validation_drop: str = key("validation score far below its best", STOP_RUN, choices=ACTIONS, on_resume=FREE)
    validation_drop_share: float = key("far: by more than this share of it", 0.5, least=0, on_resume=FREE)
    rollout_pearson: str = key("low correlation of rollout and actor", WARN, choices=ACTIONS, on_resume=FREE)
    rollout_pearson_least: float = key("low: below this", 0.95, least=-1, most=1, on_resume=FREE)
    rollout_kl: str = key("high divergence of rollout and actor", STOP_RUN, choices=ACTIONS, on_resume=FREE)
    rollout_kl_most: float = key(
        "high: above this, per token, in either direction", 0.02, unit="nats", least=0, on_resume=FREE
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
    watch: Watch = Watch()
    environment: dict[str, str] = key("more variables for every process; none that is derived", {}, on_resume=FREE)

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
