# SPDX-License-Identifier: Apache-2.0
"""The run file (`configs/*.toml`) as typed values.

One file describes one run. A value that follows from others is not in it: `recipe.launch.layout` computes those.
Units are in the names; a name without one is a count. docs/CONFIG.md is made from this file.
"""

from __future__ import annotations

import dataclasses
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recipe.launch.architecture import KNOWN as ARCHITECTURES
from recipe.launch.errors import ConfigError
from recipe.launch.typed_toml import build, key
from verl_patches.utils.reward_score.tier3 import check_name
from verl_patches.utils.reward_score.verifiers import DEFAULT, get_verifier

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ON_POLICY = "npu_on_policy"
LOSS_MODES = ("vanilla", ON_POLICY)
SIM, NPU, CUDA = DEVICES = ("sim", "npu", "cuda")
# An address of the block that RFC 5737 keeps for documentation stands for "put yours here".
PLACEHOLDER_HEAD = "192.0.2.1"
# CANN 8.2.RC1 listens on so many ports from HCCL_IF_BASE_PORT on.
HCCL_PORTS = 32
GIB, MIB = 2**30, 2**20
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


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
    seed: int = key("seed of the tiny model, the order of the data, and the training", 1)
    save_every: int = key("steps between checkpoints; 0: none", 0, gives="trainer.save_freq")
    keep_checkpoints: int = key("so many of the latest checkpoints are kept", 2, least=1)
    resume: str = key(
        "auto: go on from the last checkpoint of this run, if there is one; never: start anew",
        "auto",
        choices=("auto", "never"),
        gives="trainer.resume_mode",
    )
    output_dir: str | None = key(
        "directory that holds the run's directory, the same on every node; default: $RECIPE_RUNS, else runs/", None
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
    hbm_gib_per_die: float = key("memory of a die (sim: [simulator] hbm_mib)", 64.0, unit="GiB")
    host_memory_gib_per_node: float | None = key("memory of a machine; default: not checked", None, unit="GiB")
    head: str | None = key("address or name of the head node; sim: this machine, and not given", None)
    hosts: list[str] = key(
        "addresses or names of all nodes, the head's too, so that a missing one can be named; default: only counted", []
    )
    interface: str | None = key(
        "network interface between the nodes, where it has the same name on all; default: the one that leads to the "
        "head, found on every node",
        None,
        gives="HCCL_SOCKET_IFNAME, GLOO_SOCKET_IFNAME, TP_SOCKET_IFNAME",
    )
    ray_port: int = key("port of the head node's Ray", 6379, least=1024, most=65535)
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
        gives="HCCL_CONNECT_TIMEOUT, HCCL_EXEC_TIMEOUT, actor_rollout_ref.nccl_timeout",
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

    hbm_mib: int = key("memory of a simulated die", 256, unit="MiB", least=1)


@dataclass(frozen=True, kw_only=True)
class Model:
    """What is trained."""

    kind: str = key(
        "tiny: a model made here; path: the weights at `checkpoint`; random_init: the architecture of `path` without "
        "weights, to measure speed",
        "tiny",
        choices=("tiny", "path", "random_init"),
    )
    path: str | None = key(
        "Hugging Face directory with config.json and tokenizer", None, gives="actor_rollout_ref.model.path"
    )
    checkpoint: str | None = key(
        "Megatron torch_dist checkpoint of the same model (scripts/convert_hf_to_mcore.py); sim: made at launch if not "
        "given",
        None,
        gives="actor_rollout_ref.*.megatron.dist_checkpointing_path",
    )
    architecture: str | None = key(
        "what to assume where `path` cannot be seen, as on a laptop; where it can, config.json must agree",
        None,
        choices=tuple(ARCHITECTURES),
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
    validation_problems: int = key("so many of the first problems are validated; 0: all", 64)


@dataclass(frozen=True, kw_only=True)
class Reward:
    """The rule that pays; docs/REWARDS.md has them all."""

    verifier: str = key("name of the rule", DEFAULT)
    mix: dict[str, float] = key("weights of several rules by their names, instead of `verifier`", {})
    workers: int = key("processes that grade; 0: the trainer's own", 0)
    tier3: str | None = key("what is asked about answers that the grammar cannot read, such as math_verify", None)
    path: str = key(
        "another file with compute_score and compute_scores, relative to the repository",
        "verl_patches/utils/reward_score/r1_zero.py",
        gives="custom_reward_function.path",
    )


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """The vLLM side. Engines: one per tensor-parallel group; an instance is the engines that share their experts."""

    tensor_parallel: int = key("dies of one engine", least=1)
    instances: int = key(
        "instances; the experts of each are spread over all its dies",
        1,
        least=1,
        gives="VLLM_DP_SIZE = dies / (tensor_parallel x instances)",
    )
    samples_per_prompt: int = key("answers to each problem (GRPO's group)", least=1, gives="rollout.n")
    max_batched_tokens: int = key(
        "tokens of one engine step; below the longest sequence, prompts go in pieces", least=1
    )
    memory_share: float = key(
        "share of a die's memory for weights and KV cache", least=0.01, most=1, gives="rollout.gpu_memory_utilization"
    )
    temperature: float = key("sampling temperature", 1.0, least=0.01)
    top_p: float = key("nucleus sampling: probability mass", 1.0, least=0.01, most=1)
    top_k: int = key("sampling from the k likeliest tokens; 0: from all", 0)
    ignore_eos: bool = key("every answer goes to max_response_tokens, to measure speed", False)
    validation_samples: int = key("answers to each validation problem; the score is their mean", 1, least=1)
    validation_temperature: float = key("0: the likeliest token", 1.0)
    validation_top_p: float = key("as top_p", 1.0, least=0.01, most=1)
    validation_top_k: int = key("as top_k", 0)
    graph_mode: bool = key("decode with compiled graphs", False, gives="rollout.enforce_eager")
    kv_nz: bool = key("graph mode keeps the KV cache in the NZ layout; prompts then never go in pieces", False)
    dp_sync_on_device: bool = key(
        "what the engines tell each other before every step is reduced by the dies, not by the hosts", False
    )


@dataclass(frozen=True, kw_only=True)
class Recompute:
    """Activations that the backward pass computes again."""

    granularity: str = key("full: whole layers; selective: attention only", choices=("full", "selective"))
    method: str | None = key(
        "full: uniform: groups of `layers` layers; block: the first `layers` layers of a stage",
        None,
        choices=("uniform", "block"),
    )
    layers: int | None = key("full: see method", None, least=1)


@dataclass(frozen=True, kw_only=True)
class Actor:
    """The Megatron side; the reference policy is laid out alike."""

    tensor_parallel: int = key("1 with MindSpeed, which refuses more for multi-latent attention", least=1)
    expert_parallel: int = key("dies that share the experts of a stage", least=1)
    stage_layers: list[int] = key("layers of each pipeline stage; only the first and last may differ", least=1)
    micro_batch_tokens: int = key("most padded tokens of a rank in a pass of an update", unit="tokens", least=1)
    log_prob_micro_batch_tokens: int | None = key(
        "the same for passes without gradients; default: micro_batch_tokens", None, unit="tokens", least=1
    )
    recompute: Recompute | None = key("activation recomputation; default: none", None)
    offload_parameters: bool = key("to host memory while not needed", True)
    offload_gradients: bool = key("as offload_parameters", True)
    offload_optimizer: bool = key("as offload_parameters; not with swap_optimizer", True)
    swap_optimizer: bool = key(
        "MindSpeed keeps the optimizer states in pinned host memory, and brings them in piece by piece", False
    )
    moe_profile: str = key(
        "default: verl's router settings; stable: Pai-Megatron-Patch's, with no load balancing loss, a fixed router "
        "bias, the router in float32, and no fused rotary embedding",
        "default",
        choices=("default", "stable"),
    )


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
        gives="actor.ppo_mini_batch_size = prompts_per_step / updates_per_step",
    )
    learning_rate: float = key("constant after the warm-up", gives="actor.optim.lr")
    warmup_steps: int = key("updates until the learning rate is reached", 0)
    weight_decay: float = key("Adam's", 0.01)
    adam_beta2: float = key("Adam's second coefficient; the first is 0.9", 0.999, least=0, most=1)
    max_gradient_norm: float = key("longer gradients are shortened to this", 1.0, gives="actor.optim.clip_grad")
    clip_ratio: float = key("PPO's clip of the probability ratio", 0.2)
    clip_ratio_high: float | None = key("its upper side, if another", None)
    kl_coefficient: float = key("weight of the KL divergence from the reference", 0.001)
    kl_estimator: str = key(
        "its estimator per token", "low_var_kl", choices=("low_var_kl", "kl", "mse", "abs"), gives="actor.kl_loss_type"
    )
    loss_mode: str = key(
        f"vanilla: with a pass for the old log-probabilities; {ON_POLICY}: without, for one update a step",
        "vanilla",
        choices=LOSS_MODES,
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
    def hbm_bytes_per_die(self) -> int:
        return self.simulator.hbm_mib * MIB if self.simulated else int(self.cluster.hbm_gib_per_die * GIB)

    def with_run(self, **changes: Any) -> RunConfig:
        """The same run with other values in `[run]`; a value of None changes nothing."""
        given = {key: value for key, value in changes.items() if value is not None}
        return dataclasses.replace(self, run=dataclasses.replace(self.run, **given))

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


def load(path: Path) -> RunConfig:
    """Read a run file.

    Raises:
        ConfigError: the file is missing or not TOML, or a key is unknown, missing, of another type, beyond its limits,
            or does not go with another.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); give one like configs/sim.toml") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text ({error.reason})") from None
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None
    config: RunConfig = build(RunConfig, values, str(path))
    _check_choices(config, str(path))
    return config


def _check_choices(config: RunConfig, where: str) -> None:
    """Keys of one section that need, or rule out, one another."""
    model, data, rollout, recompute = config.model, config.data, config.rollout, config.actor.recompute
    for section, name, value, belongs in (
        ("model", "path", model.path, model.kind != "tiny"),
        ("data", "path", data.path, data.kind == "json"),
        ("data", "train_path", data.train_path, data.kind == "parquet"),
        ("data", "validation_path", data.validation_path, data.kind == "parquet"),
    ):
        kind = getattr(config, section).kind
        if belongs and value is None:
            raise ConfigError(f'{where}: [{section}] kind = "{kind}" needs {name}')
        if not belongs and value is not None:
            raise ConfigError(f'{where}: [{section}] {name} does not go with kind = "{kind}"; remove one of them')
    if model.checkpoint is not None and model.kind != "path":
        raise ConfigError(f'{where}: [model] checkpoint goes with kind = "path", and only with it')
    if model.checkpoint is None and model.kind == "path" and not config.simulated:
        raise ConfigError(
            f'{where}: [model] kind = "path" needs checkpoint, a directory made by scripts/convert_hf_to_mcore.py'
        )
    if not config.simulated and "tiny" in (model.kind, *(["tiny"] if data.kind == "arithmetic" else [])):
        raise ConfigError(
            f'{where}: [cluster] device = "{config.cluster.device}" runs models and data of yours; set [model] path '
            "and [data] path"
        )
    if config.cluster.hosts and len(config.cluster.hosts) != config.cluster.nodes:
        raise ConfigError(
            f"{where}: [cluster] hosts names {len(config.cluster.hosts)} nodes, and nodes is {config.cluster.nodes}; "
            "list every node once, the head too"
        )
    if config.cluster.nodes > 1 and config.cluster.head is None and not config.simulated:
        raise ConfigError(f"{where}: [cluster] key 'head' is missing; give the address of the head node")
    for name, text in config.environment.items():
        if not _VARIABLE.fullmatch(name) or "\0" in text:
            raise ConfigError(f"{where}: [environment] {name!r} = {text!r} cannot be a variable of the environment")
    try:
        get_verifier(config.reward.verifier, config.reward.mix or None)
        if config.reward.tier3 is not None:
            check_name(config.reward.tier3, config.reward.workers)
    except ValueError as error:
        raise ConfigError(f"{where}: [reward] {error}") from None
    if rollout.kv_nz and not rollout.graph_mode:
        raise ConfigError(f"{where}: [rollout] kv_nz is a layout of graph mode; set graph_mode = true, or remove it")
    if data.kind == "arithmetic" and model.kind != "tiny":
        raise ConfigError(f'{where}: [data] kind = "arithmetic" comes with the tiny model; set [data] kind = "json"')
    if recompute is not None and (recompute.granularity == "full") != (
        None not in (recompute.method, recompute.layers)
    ):
        raise ConfigError(
            f'{where}: [actor.recompute] granularity = "full" needs method and layers; "selective" has neither'
        )
