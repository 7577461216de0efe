# SPDX-License-Identifier: Apache-2.0
"""A run file for a model and a kind of die alone: the smallest cluster that trains it, and a layout for it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recipe.models.architecture import Architecture
from recipe.models.config_file import read_config
from recipe.models.families import describe, require_converted
from recipe.models.family import ModelError
from recipe.models.published import KNOWN
from recipe.plan.cluster import ENGINE_SIZES, MOST_NODES, SmallestCluster, smallest_cluster
from recipe.plan.duration import estimate
from recipe.plan.subject import subject
from recipe.plan.traffic import lengths
from recipe.runfile.config import from_values
from recipe.runfile.engines import HEADS_IN_GRAPHS
from recipe.runfile.errors import ConfigError
from recipe.runfile.schema import CUDA, HARDWARE, HOST, NPU, OFFLOADED, ON_POLICY, PLACEHOLDER_HEAD, SWAPPED
from recipe.weights.hf_directory import HUGGING_FACE

# Tokens of an engine step: what a whole sequence has, but no more.
_MOST_BATCHED_TOKENS = 8192
# Of a die, for what no plan counts: kernels' workspaces, and memory in pieces.
_LEFT_FREE = 0.1


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is to be trained, and on what.

    Attributes:
        model: a name of `KNOWN`, or a directory with config.json, also as it was published.
        hardware: a key of `HARDWARE`.
        prompt_tokens, response_tokens: the limits of the lengths.
        prompts, samples: prompts of a step, and answers to each.
        host_memory_gib: of a node; None: as such nodes have.
        shared: the directory, seen by every node, that checkpoint, data and runs are in.
    """

    model: str
    hardware: str
    prompt_tokens: int = 1024
    response_tokens: int = 2048
    prompts: int = 128
    samples: int = 8
    host_memory_gib: float | None = None
    shared: str


@dataclass(frozen=True)
class Fit:
    """The run that was found, the tables of its run file, and what makes its checkpoint, where that is known."""

    found: SmallestCluster
    values: dict[str, dict[str, Any]]
    conversion: str | None


def fit(wanted: Wanted) -> Fit:
    """The smallest cluster that the model can be trained on, as a run file.

    Of all layouts on the fewest nodes, with nothing recomputed, with every layer recomputed, and with the optimizer
    swapped (NPUs) or on the host (GPUs) besides, the one is taken whose step is estimated to be the shortest, of those
    that leave a tenth of every die free if there are any.

    Raises:
        ConfigError: an unknown model, one that has fewer positions than that, or no cluster of up to `MOST_NODES` nodes
            has room.
    """
    model, place = _model(wanted.model, wanted.shared), f"--fit {wanted.model}"
    sizes = model.sizes
    if (sequence := wanted.prompt_tokens + wanted.response_tokens) > sizes.max_positions:
        raise ConfigError(
            f"{model.name} has {sizes.max_positions} positions (max_position_embeddings), and {wanted.prompt_tokens} + "
            f"{wanted.response_tokens} tokens are {sequence}; take shorter ones"
        )
    fitting = []
    for saving in _savings(HARDWARE[wanted.hardware].device):
        values = _values(wanted, model, saving)
        found = smallest_cluster(subject(from_values(values, place), sizes), _order)
        if found is not None:
            fitting.append((values, found))
    if not fitting:
        raise ConfigError(
            f"{model.name} does not fit on up to {MOST_NODES} nodes of {wanted.hardware} with {wanted.prompts} prompts "
            f"x {wanted.samples} answers of up to {wanted.prompt_tokens} + {wanted.response_tokens} tokens; take fewer "
            "or shorter ones, or larger dies"
        )
    values, best = min(fitting, key=lambda one: _order(one[1]))
    return Fit(best, _with_layout(values, best), model.conversion)


@dataclass(frozen=True)
class _Model:
    """A model: the name of its run, its keys of a run file's `[model]`, its sizes, and what makes its checkpoint."""

    name: str
    keys: dict[str, str]
    sizes: Architecture
    conversion: str | None = None


def _model(named: str, shared: str) -> _Model:
    if named in KNOWN:
        home = f"{shared}/{named}-torch_dist"
        keys = {"path": f"{home}/{HUGGING_FACE}", "checkpoint": home, "architecture": named}
        return _Model(named, keys, KNOWN[named])
    directory = Path(named).expanduser().resolve()
    try:
        config = read_config(directory) if directory.is_dir() else None
    except ModelError as error:
        raise ConfigError(f"--fit {named}: {error}") from None
    if config is None:
        raise ConfigError(f"--fit {named}: neither a directory with config.json nor one of {', '.join(KNOWN)}")
    try:
        sizes = describe(config)
    except ModelError as error:
        raise ConfigError(f"--fit {named}: config.json: {error}") from None
    converted = directory.parent if directory.name == HUGGING_FACE else None
    name = (directory if converted is None else converted).name.removesuffix("-torch_dist")
    name = re.sub(r"[^A-Za-z0-9_.-]+", "_", name).lstrip("_.-")[:64] or "model"
    home = f"{shared}/{name}-torch_dist" if converted is None else str(converted)
    if converted is not None:
        return _Model(name, {"path": str(directory), "checkpoint": home}, sizes)
    conversion = shlex.join(
        ["python", "scripts/convert_hf_to_mcore.py", "--load-dir", str(directory), "--save-dir", home]
    )
    try:
        require_converted(config)
    except ModelError:
        published = next(({"architecture": name} for name, known in KNOWN.items() if known == sizes), {})
        return _Model(name, {"path": f"{home}/{HUGGING_FACE}", "checkpoint": home, **published}, sizes, conversion)
    return _Model(name, {"path": str(directory), "checkpoint": home}, sizes, conversion)


def _order(found: SmallestCluster) -> tuple[float, ...]:
    """Fewest nodes first, then those with some room, the quickest first."""
    run = found.run
    time = estimate(run, lengths(run, None, None))
    assert time is not None  # simulated dies are no hardware to ask for
    full = found.fullest_bytes > (1 - _LEFT_FREE) * found.memory.limit
    return run.config.cluster.nodes, full, time.step.estimate, found.fullest_bytes


def _savings(device: str) -> list[dict[str, Any]]:
    """Keys of `[actor]`, from what costs no time to what costs most."""
    recompute = {"granularity": "full", "method": "uniform", "layers": 1}
    rare = HOST if device == CUDA else SWAPPED
    return [
        {"optimizer": OFFLOADED},
        {"optimizer": OFFLOADED, "recompute": recompute},
        {"optimizer": rare, "recompute": recompute},
    ]


def _values(wanted: Wanted, model: _Model, saving: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """A run file's tables: a node of the kind, which the search goes on from."""
    device = HARDWARE[wanted.hardware].device
    sequence = wanted.prompt_tokens + wanted.response_tokens
    return {
        "run": {
            "name": model.name,
            "steps": 100,
            "validate_every": 10,
            "save_every": 20,
            "output_dir": f"{wanted.shared}/runs",
            "setup_deadline_s": 7200,
            "step_deadline_s": 3600,
        },
        "cluster": {
            "device": device,
            "hardware": wanted.hardware,
            "nodes": 1,
            **({} if wanted.host_memory_gib is None else {"host_memory_gib_per_node": wanted.host_memory_gib}),
        },
        "model": {"kind": "path", **model.keys},
        "data": {
            "kind": "parquet",
            "train_path": f"{wanted.shared}/deepscaler/train.parquet",
            "validation_path": f"{wanted.shared}/deepscaler/test.parquet",
            "max_prompt_tokens": wanted.prompt_tokens,
            "max_response_tokens": wanted.response_tokens,
        },
        "reward": {"verifier": "r1_zero", "workers": 8},
        "rollout": {
            "tensor_parallel": 1,
            "samples_per_prompt": wanted.samples,
            "max_batched_tokens": max(wanted.prompt_tokens, min(sequence, _MOST_BATCHED_TOKENS)),
            "memory_share": 0.8,
            "graph_mode": device == NPU and _graphs(model.sizes),
        },
        "actor": {
            "tensor_parallel": 1,
            "expert_parallel": 1,
            "stage_layers": [model.sizes.layers],
            "micro_batch_tokens": sequence,
            **saving,
        },
        "train": {
            "prompts_per_step": wanted.prompts,
            "learning_rate": 1e-6,
            "kl_coefficient": 0.001,
            "loss_mode": ON_POLICY if device == NPU else "vanilla",
        },
    }


def _graphs(model: Architecture) -> bool:
    """Whether graphs decode the model, and its heads, on one die of an engine or spread over several."""
    return model.has_graphs and any(model.heads // dies in HEADS_IN_GRAPHS for dies in ENGINE_SIZES)


def _with_layout(values: dict[str, dict[str, Any]], found: SmallestCluster) -> dict[str, dict[str, Any]]:
    """The tables with what the search has decided."""
    config = found.run.config
    actor = {"expert_parallel": config.actor.expert_parallel, "stage_layers": config.actor.stage_layers}
    rollout = {"tensor_parallel": config.rollout.tensor_parallel, "instances": config.rollout.instances}
    nodes = config.cluster.nodes
    decided: dict[str, dict[str, Any]] = {
        "cluster": {"nodes": nodes, **({"head": PLACEHOLDER_HEAD} if nodes > 1 else {})},
        "actor": actor,
        "rollout": rollout,
    }
    return {name: {**section, **decided.get(name, {})} for name, section in values.items()}
