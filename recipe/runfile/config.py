# SPDX-License-Identifier: Apache-2.0
"""The run file (`configs/*.toml`) as typed values.

One file describes one run; `recipe.runfile.schema` has its keys. A value that follows from others is not in it:
`recipe.runfile.derive` works those out.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recipe.reward.processes.tier3 import check_name
from recipe.reward.verifiers import get_verifier
from recipe.runfile.errors import ConfigError
from recipe.runfile.hosts import require_host
from recipe.runfile.hydra import require_literal
from recipe.runfile.passed import SECTION, flattened, parsed
from recipe.runfile.schema import (
    CUDA,
    CUSTOM,
    HARDWARE,
    HOST,
    ON_POLICY,
    CustomHardware,
    RunConfig,
    missing_figures,
)
from recipe.runfile.typed_toml import build, shown
from recipe.tiny.config import tiny_fields
from recipe.tiny.members import DEEPSEEK_V3
from recipe.tiny.sizes import SMALLEST

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def load(path: Path, settings: Sequence[str] = ()) -> RunConfig:
    """Read a run file.

    Args:
        path: the file.
        settings: `KEY=VALUE` of the command line, which win over those of `[verl]`.

    Raises:
        ConfigError: the file is missing or not TOML, or a key is unknown, missing, of another type, beyond its limits,
            or does not go with another.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # some editors put a mark at the beginning
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); give one like configs/sim.toml") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text ({error.reason})") from None
    try:
        values = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, or very deep nesting
        raise ConfigError(f"{path}: not valid TOML: {error}") from None
    config = from_values(values, str(path))
    return config.with_passed(parsed(settings)) if settings else config


def from_values(values: Mapping[str, Any], where: str) -> RunConfig:
    """The run of a run file's tables.

    Args:
        values: each section's keys and values, as TOML has them.
        where: what messages name as their place.

    Raises:
        ConfigError: as `load`.
    """
    passed = values.get(SECTION, {})
    if isinstance(passed, dict):
        values = {**values, SECTION: flattened(passed, f"{where}: [{SECTION}] ")}
    config: RunConfig = build(RunConfig, dict(values), where)
    _check_choices(config, where)
    return config


def require_name(name: str) -> None:
    """Refuse a run name that is no file name, as it names the run's directory.

    Raises:
        ConfigError: with what a name is made of.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(f"run name {shown(name)}: use letters, digits, '.', '_' and '-', at most 64, no leading mark")


def _check_choices(config: RunConfig, where: str) -> None:
    """Check values that no field's limits can express, and keys that need or exclude one another."""
    for check in (
        _check_texts, _check_hosts, _check_kinds, _check_nodes, _check_hardware, _check_names, _check_reward,
        _check_profile, _check_pairs,
    ):  # fmt: skip
        check(config, where)


def _check_texts(config: RunConfig, where: str) -> None:
    try:
        require_name(config.run.name)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    for name, path in config.paths.items():
        try:
            Path(path).expanduser()
        except RuntimeError:
            raise ConfigError(f"{where}: {name} is {shown(path)}; there is no home directory of that user") from None
        require_literal(path, f"{where}: {name} is")


def _check_hosts(config: RunConfig, where: str) -> None:
    heads = [] if config.cluster.head is None else [config.cluster.head]
    for host in (*heads, *config.cluster.hosts):
        require_host(host, f"{where}: [cluster] {'head' if host in heads else 'hosts'}")
    if len(set(config.cluster.hosts)) < len(config.cluster.hosts):
        raise ConfigError(f"{where}: [cluster] hosts names a node twice; list every node once, the head too")


def _check_kinds(config: RunConfig, where: str) -> None:
    model, data = config.model, config.data
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
    for name, default in (("sizes", SMALLEST), ("member", DEEPSEEK_V3)):
        if model.kind != "tiny" and getattr(model, name) != default:
            raise ConfigError(f'{where}: [model] {name} does not go with kind = "{model.kind}"; remove one of them')
    try:
        tiny_fields(model.sizes, model.member)
    except ValueError as error:
        raise ConfigError(f"{where}: [model] {error}") from None
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


def _check_nodes(config: RunConfig, where: str) -> None:
    if config.cluster.hosts and len(config.cluster.hosts) != config.cluster.nodes:
        raise ConfigError(
            f"{where}: [cluster] hosts names {len(config.cluster.hosts)} nodes, and nodes is {config.cluster.nodes}; "
            "list every node once, the head too"
        )
    if config.cluster.nodes > 1 and config.cluster.head is None and not config.simulated:
        raise ConfigError(f"{where}: [cluster] key 'head' is missing; give the address of the head node")


def _check_hardware(config: RunConfig, where: str) -> None:
    cluster, label = config.cluster, f"{where}: [cluster]"
    of_device = [name for name, hardware in HARDWARE.items() if hardware.device == cluster.device]
    choices = f"one of {', '.join([*of_device, CUSTOM])}" if of_device else "none, as no hardware is simulated"
    known = HARDWARE.get(cluster.hardware or "")
    if not config.simulated and cluster.hardware is None:
        raise ConfigError(
            f"{label} key 'hardware' is missing with device = \"{cluster.device}\"; expected {choices}; on a node, "
            "python -m recipe doctor names it"
        )
    if cluster.hardware is not None and cluster.hardware not in of_device + [CUSTOM] * (not config.simulated):
        raise ConfigError(
            f'{label} hardware = "{cluster.hardware}" with device = "{cluster.device}"; expected {choices}'
        )
    if cluster.hardware == CUSTOM:
        if missing := missing_figures(cluster, config.hardware):
            raise ConfigError(f'{label} hardware = "{CUSTOM}" needs {", ".join(missing)}; take them from a data sheet')
    elif config.hardware != CustomHardware():
        raise ConfigError(f'{where}: [hardware] goes with [cluster] hardware = "{CUSTOM}"; remove one of them')
    if cluster.dies_per_node is None:
        raise ConfigError(f"{label} key 'dies_per_node' is missing; it is a whole number")
    if known is not None and cluster.dies_per_node > known.dies_per_node:
        raise ConfigError(
            f"{label} dies_per_node is {cluster.dies_per_node}; expected at most {known.dies_per_node}, the dies of a "
            f"node of {cluster.hardware} ({known.name})"
        )


def _check_names(config: RunConfig, where: str) -> None:
    for name in config.environment:
        if not _VARIABLE.fullmatch(name):
            raise ConfigError(f"{where}: [environment] {shown(name)} cannot be the name of a variable")


def _check_reward(config: RunConfig, where: str) -> None:
    try:
        get_verifier(config.reward.verifier, config.reward.mix or None)
        if config.reward.tier3 is not None:
            check_name(config.reward.tier3, config.reward.workers)
    except ValueError as error:
        raise ConfigError(f"{where}: [reward] {error}") from None


def _check_profile(config: RunConfig, where: str) -> None:
    profile, dies = config.profile, config.cluster.nodes * config.cluster.dies_per_node
    if not profile.steps:
        return
    if config.cluster.device == CUDA:
        raise ConfigError(f"{where}: [profile] is torch_npu's profiler; on GPUs remove it")
    if (last := max(profile.steps)) > config.run.steps:
        raise ConfigError(f"{where}: [profile] steps has {last}, and the run's last step is {config.run.steps}")
    if not profile.ranks or max(profile.ranks) >= dies:
        raise ConfigError(f"{where}: [profile] ranks is {profile.ranks}; expected ranks from 0 to {dies - 1}")


def _check_pairs(config: RunConfig, where: str) -> None:
    train = config.train
    if train.importance_weights != "off" and train.loss_mode == ON_POLICY:
        raise ConfigError(
            f'{where}: [train] importance_weights = "{train.importance_weights}" weighs by the old log-probabilities, '
            f'and loss_mode "{ON_POLICY}" computes none; set loss_mode = "vanilla", or remove it'
        )
    model, data, rollout, recompute = config.model, config.data, config.rollout, config.actor.recompute
    if not rollout.graph_mode:
        for name in ("graph_sizes", "multistream_mla", "multistream_moe", "kv_nz", "rebalance"):
            if getattr(rollout, name):
                raise ConfigError(f"{where}: [rollout] {name} is of graph mode; set graph_mode = true, or remove it")
    if rollout.rebalance and not rollout.request_seeds:
        raise ConfigError(f"{where}: [rollout] rebalance goes with request_seeds = true; set it, or remove rebalance")
    if rollout.rebalance and config.cluster.device == CUDA:
        raise ConfigError(f"{where}: [rollout] rebalance is a change to the rollout on NPUs; remove it")
    if data.kind == "arithmetic" and model.kind != "tiny":
        raise ConfigError(f'{where}: [data] kind = "arithmetic" comes with the tiny model; set [data] kind = "json"')
    if config.actor.optimizer_host_share is not None and config.actor.optimizer != HOST:
        raise ConfigError(
            f'{where}: [actor] optimizer_host_share goes with optimizer = "{HOST}", and optimizer is '
            f'"{config.actor.optimizer}"; remove one of them'
        )
    if recompute is not None and (recompute.granularity == "full") != (
        None not in (recompute.method, recompute.layers)
    ):
        raise ConfigError(
            f'{where}: [actor.recompute] granularity = "full" needs method and layers; "selective" has neither'
        )
