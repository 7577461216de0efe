# SPDX-License-Identifier: Apache-2.0
"""To whom verl hands on whole tables of its configuration, and which names those take.

A name that the receiver does not know would be a TypeError after all weights are loaded, or, for Megatron-core's
transformer, a warning among thousands of lines, and a run without it.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from recipe.runfile.passed.declared import ANY, Kinds, fields_of, keywords_of, parameters_of

_MEGATRON = "megatron.core."
_TRANSFORMER, _OPTIMIZER, _DATA_PARALLEL, _ENGINE, _RAY = (
    _MEGATRON + "transformer.transformer_config.MLATransformerConfig",
    _MEGATRON + "optimizer.optimizer_config.OptimizerConfig",
    _MEGATRON + "distributed.distributed_data_parallel_config.DistributedDataParallelConfig",
    "vllm.engine.arg_utils.EngineArgs",
    "ray.init",
)
_RECEIVERS = {
    "actor_rollout_ref.actor.megatron.override_transformer_config": _TRANSFORMER,
    "actor_rollout_ref.actor.optim.override_optimizer_config": _OPTIMIZER,
    "actor_rollout_ref.actor.megatron.override_ddp_config": _DATA_PARALLEL,
    "actor_rollout_ref.rollout.engine_kwargs.vllm": _ENGINE,
    "ray_kwargs.ray_init": _RAY,
}
_ROLLOUT = Path("verl", "workers", "rollout", "vllm_rollout", "vllm_rollout_spmd.py")


@dataclass(frozen=True)
class Receiver:
    """Who takes a table, the names it knows with what each admits, and those of them that verl gives it already."""

    name: str
    fields: Mapping[str, Kinds]
    given: frozenset[str] = frozenset()


def receiver_of(table: str, upstream: Path) -> Receiver | None:
    """Who takes the table of that key; None where it is nobody known, or one whose source is not here."""
    target = _RECEIVERS.get(table)
    if target is None:
        return None
    fields = _ray_init() if target == _RAY else fields_of(upstream, target)
    if fields is None:
        return None
    if target == _TRANSFORMER:
        fields = {**dict.fromkeys(_mindspeed(upstream), frozenset((ANY,))), **fields}
    given = keywords_of(upstream / _ROLLOUT, "LLM") if target == _ENGINE else frozenset()
    return Receiver(target, fields, given)


def _ray_init() -> Mapping[str, Kinds] | None:
    """The parameters of `ray.init`, from Ray's source: importing Ray takes seconds."""
    spec = importlib.util.find_spec("ray")
    if spec is None or not spec.submodule_search_locations:
        return None
    file = Path(spec.submodule_search_locations[0], "_private", "worker.py")
    return parameters_of(file, "init") if file.is_file() else None


@cache
def _mindspeed(upstream: Path) -> frozenset[str]:
    """The options of MindSpeed, which reads the same table as its command line; none where it is not among the sources.

    They are what its sources hand to `add_argument`.
    """
    names: set[str] = set()
    for file in sorted((upstream / "mindspeed").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "add_argument":
                texts = [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
                names |= {str(text).lstrip("-").replace("-", "_") for text in texts}
    return frozenset(names)
