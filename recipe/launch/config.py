# SPDX-License-Identifier: Apache-2.0
"""The run file (`configs/*.toml`) as typed values.

One file describes one run. A value that follows from others is not in it: `recipe.launch.layout` computes those.
Units are in the names; a name without one is a count.
"""

from __future__ import annotations

import dataclasses
import difflib
import sys
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recipe.launch.errors import ConfigError
from verl_patches.utils.reward_score.verifiers import DEFAULT, get_verifier

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ON_POLICY = "npu_on_policy"
LOSS_MODES = ("vanilla", ON_POLICY)


@dataclass(frozen=True)
class Run:
    """Name and length of the run. The deadlines bound the time without a sign of progress."""

    name: str
    steps: int
    validate_every: int
    seed: int = 1
    setup_deadline_s: int = 600
    step_deadline_s: int = 240


@dataclass(frozen=True)
class Cluster:
    """The dies of the run; a die is what Ray counts as one `NPU` and torch as one device."""

    nodes: int
    dies_per_node: int


@dataclass(frozen=True)
class Simulator:
    """The simulated devices."""

    hbm_mib: int = 256


@dataclass(frozen=True)
class Model:
    """`kind` "tiny": a model made here; "path": the Hugging Face directory `path`.

    `warm_start_steps` overrides the tiny model's own number of supervised steps.
    """

    kind: str = "tiny"
    path: str | None = None
    warm_start_steps: int | None = None


@dataclass(frozen=True)
class Data:
    """`kind` "arithmetic": the sums that go with the tiny model; "json": the DeepScaleR-schema file `path`."""

    template: str
    max_prompt_tokens: int
    max_response_tokens: int
    kind: str = "arithmetic"
    path: str | None = None
    train_share: float = 0.9
    validation_problems: int = 64


@dataclass(frozen=True)
class Reward:
    """The rule that pays: a `verifier` of docs/REWARDS.md by its name, or `mix`, weights by their names.

    `workers`: answers are graded in so many processes of their own, 0: in the trainer's.  `path`, relative to the
    repository, names another file with the functions compute_score and compute_scores.
    """

    verifier: str = DEFAULT
    mix: dict[str, float] = field(default_factory=dict)
    workers: int = 0
    path: str = "verl_patches/utils/reward_score/r1_zero.py"


@dataclass(frozen=True)
class Rollout:
    """The vLLM side.

    `kv_nz`: graph mode keeps the KV cache in the NZ layout; prompts are then never prefilled in pieces.
    `dp_sync_on_device`: what the engines tell each other before every step is reduced by the dies instead of the hosts.
    """

    tensor_parallel: int
    samples_per_prompt: int
    max_batched_tokens: int
    memory_share: float
    temperature: float = 1.0
    validation_samples: int = 1
    validation_temperature: float = 1.0
    graph_mode: bool = False
    kv_nz: bool = False
    dp_sync_on_device: bool = False


@dataclass(frozen=True)
class Actor:
    """The Megatron side; `stage_layers` lists the layers of each pipeline stage, first to last.

    `micro_batch_tokens` bounds the padded tokens of one forward pass of a rank.
    """

    tensor_parallel: int
    expert_parallel: int
    stage_layers: list[int]
    micro_batch_tokens: int


@dataclass(frozen=True)
class Train:
    """One optimizer step is made for all the samples of `prompts_per_step` prompts (on-policy).

    `loss_mode` "vanilla": PPO's clipped objective, with a forward pass for the old log-probabilities; "npu_on_policy":
    the same loss without that pass, as the old are the current ones. The rollout's own log-probabilities, which could
    only be compared with the old ones, are then not recorded.
    """

    prompts_per_step: int
    learning_rate: float
    kl_coefficient: float = 0.001
    loss_mode: str = "vanilla"


@dataclass(frozen=True)
class RunConfig:
    """One run file."""

    run: Run
    cluster: Cluster
    data: Data
    rollout: Rollout
    actor: Actor
    train: Train
    reward: Reward = field(default_factory=Reward)
    model: Model = Model()
    simulator: Simulator = Simulator()

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
            max_response_tokens=max(max_response_tokens, self.data.max_response_tokens),
        )
        return dataclasses.replace(self, data=data)


def load(path: Path) -> RunConfig:
    """Read a run file.

    Raises:
        ConfigError: the file is missing or not TOML, or a key is unknown, missing, or of another type.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); give one like configs/sim.toml") from None
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None
    config: RunConfig = _build(RunConfig, values, str(path), "")
    _check_choices(config, str(path))
    return config


def _check_choices(config: RunConfig, where: str) -> None:
    for section, value, kinds, needs_path in (
        ("model", config.model, ("tiny", "path"), "path"),
        ("data", config.data, ("arithmetic", "json"), "json"),
    ):
        if value.kind not in kinds:
            raise ConfigError(f"{where}: [{section}] kind is {value.kind!r}; expected one of {', '.join(kinds)}")
        if (value.kind == needs_path) != (value.path is not None):
            raise ConfigError(f'{where}: [{section}] path goes with kind = "{needs_path}", and only with it')
    try:
        get_verifier(config.reward.verifier, config.reward.mix or None)
    except ValueError as error:
        raise ConfigError(f"{where}: [reward] {error}") from None
    if config.rollout.kv_nz and not config.rollout.graph_mode:
        raise ConfigError(f"{where}: [rollout] kv_nz is a layout of graph mode; set graph_mode = true, or remove it")
    if config.train.loss_mode not in LOSS_MODES:
        raise ConfigError(
            f"{where}: [train] loss_mode is {config.train.loss_mode!r}; expected one of {', '.join(LOSS_MODES)}"
        )
    if config.data.kind == "arithmetic" and config.model.kind != "tiny":
        raise ConfigError(f'{where}: [data] kind = "arithmetic" comes with the tiny model; set [data] kind = "json"')


def _build(cls: type[Any], values: dict[str, Any], where: str, section: str) -> Any:
    """An instance of the dataclass `cls` from TOML values, refusing what does not fit with one line."""
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}
    label = f"{where}: [{section}] " if section else f"{where}: "
    noun = "key" if section else "section"
    for name in values:
        if name not in fields:
            near = difflib.get_close_matches(name, fields, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(fields)}"
            raise ConfigError(f"{label}unknown {noun} {name!r}; {hint}")
    arguments = {}
    for name, declared in fields.items():
        if name not in values:
            if declared.default is dataclasses.MISSING and declared.default_factory is dataclasses.MISSING:
                raise ConfigError(f"{label}{noun} {name!r} is missing; it is a {_describe(hints[name])}")
            continue
        value = values[name]
        if dataclasses.is_dataclass(hints[name]):
            if not isinstance(value, dict):
                raise ConfigError(f"{label}{name!r} is a {type(value).__name__}; expected a section [{name}]")
            arguments[name] = _build(typing.cast(type[Any], hints[name]), value, where, name)
        else:
            arguments[name] = _typed(hints[name], value, f"{label}{name}")
    return cls(**arguments)


def _typed(hint: Any, value: Any, label: str) -> Any:
    if typing.get_origin(hint) is types.UnionType:
        hint = next(option for option in typing.get_args(hint) if option is not type(None))
    if typing.get_origin(hint) is list:
        (item,) = typing.get_args(hint)
        if isinstance(value, list) and value:
            return [_typed(item, element, label) for element in value]
    elif typing.get_origin(hint) is dict:
        _, item = typing.get_args(hint)
        if isinstance(value, dict) and value:
            return {key: _typed(item, element, f"{label}.{key}") for key, element in value.items()}
    elif hint is float and type(value) in (int, float):
        return float(value)
    elif type(value) is hint:
        if hint is int and value < 0:
            raise ConfigError(f"{label} is {value}; expected a number that is not negative")
        return value
    raise ConfigError(f"{label} is {value!r} ({type(value).__name__}); expected a {_describe(hint)}")


def _describe(hint: Any) -> str:
    if dataclasses.is_dataclass(hint):
        return "section"
    if typing.get_origin(hint) is list:
        return f"list of {_describe(typing.get_args(hint)[0])}s"
    if typing.get_origin(hint) is dict:
        return f"table of {_describe(typing.get_args(hint)[1])}s"
    return {int: "whole number", float: "number", str: "text", bool: "true or false"}.get(hint, str(hint))
