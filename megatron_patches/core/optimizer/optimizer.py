# SPDX-License-Identifier: Apache-2.0
"""A checkpoint names the optimizer's states alike in every layout, so that another layout can load them.

A rank has one optimizer for the parameters that all data parallel ranks share and one for the experts that expert
parallel ranks divide, or only one of them: a pipeline stage without experts, or an actor without expert parallelism.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from recipe.overlay import patch

DENSE, EXPERTS = 0, 1


def parts(chained: Any) -> dict[int, Any] | None:
    """A rank's optimizers by DENSE and EXPERTS; None where two are of one kind, which nothing here makes."""
    by_part = {_part(optimizer): optimizer for optimizer in chained.chained_optimizers}
    return by_part if len(by_part) == len(chained.chained_optimizers) else None


def _part(optimizer: Any) -> int:
    return EXPERTS if any(group.get("is_expert_parallel") for group in optimizer.param_groups) else DENSE


@patch(
    "megatron.core.optimizer.optimizer:ChainedOptimizer.sharded_state_dict",
    why="states are named after the optimizer's number where a rank has two, and have plain names where it has one: a "
    "checkpoint with a pipeline stage without experts cannot be loaded at all, and no other expert parallel size loads "
    "one without expert parallelism, or the other way round",
    upstream="megatron-core==0.12.1",
    fingerprint="sha256:16c4455741dc63dd88dfd39742371aa2ba06195ff8f066b2c033e22c9fb774ac",
    remove_when="Megatron-core names the optimizer's states after their parameters alone",
)
def sharded_state_dict(
    original: Callable[..., dict[Any, Any]],
    self: Any,
    model_sharded_state_dict: Mapping[str, Any],
    is_loading: bool = False,
    **kwargs: Any,
) -> dict[Any, Any]:
    """The sharded states of a rank's optimizers by DENSE and EXPERTS, each under the names of its parameters."""
    by_part = parts(self)
    if by_part is None:
        return original(self, model_sharded_state_dict, is_loading, **kwargs)
    # NPU-ADAPTATION: no part has a prefix of its own, as no parameter is in two
    return {
        part: optimizer.sharded_state_dict(model_sharded_state_dict, is_loading, **kwargs)
        for part, optimizer in by_part.items()
    }


@patch(
    "megatron.core.optimizer.optimizer:ChainedOptimizer.load_state_dict",
    why="what belongs to no parameter is in the checkpoint as the first rank has it, and a rank with another number of "
    "optimizers stops",
    upstream="megatron-core==0.12.1",
    fingerprint="sha256:b0bfcd2ba7e4e75560993db40c202db3c8145d6d6b1797aa5fb5e2b78a1e3452",
    remove_when="Megatron-core loads a checkpoint on ranks with another number of optimizers than the first",
)
def load_state_dict(original: Callable[..., None], self: Any, state_dict: Any) -> None:
    """Load what `sharded_state_dict` has asked for; `state_dict` may have parts that this rank lacks."""
    by_part = parts(self)
    saved = [state for state in state_dict.values() if "optimizer" in state] if isinstance(state_dict, dict) else []
    if by_part is None or not saved:
        original(self, state_dict)
        return
    for part, optimizer in by_part.items():
        # NPU-ADAPTATION: what the first rank does not have for this part it has for the other
        optimizer.load_state_dict({**saved[0], **state_dict[part]})
