# SPDX-License-Identifier: Apache-2.0
"""The random states of one rank in a checkpoint, and those it starts from.

verl saves the generators of the first data-parallel rank and sets all others to them, and those of the rollout not at
all. Here every rank has its own file.
"""

# NPU-ADAPTATION: each rank saves, loads and seeds its own generators

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from megatron.core import parallel_state, tensor_parallel
from verl.utils.device import get_device_name, get_torch_device

from verl_patches.random_states import (
    DIRECTORY,
    UNUSABLE,
    damaged,
    derived_seed,
    host_states,
    packed,
    read_states,
    set_host_states,
    unpacked,
    write_states,
)

logger = logging.getLogger(__name__)


def save_rank(worker: Any, checkpoint: Path) -> None:
    """Write this rank's states into `checkpoint`, a directory `global_step_N`; `worker` is an ActorRolloutRefWorker."""
    trackers = tensor_parallel.get_cuda_rng_tracker().get_states()
    states: dict[str, Any] = {
        "layout": _layout(worker),
        **host_states(),
        "device": packed(get_torch_device().get_rng_state()),
        "megatron": {name: packed(state) for name, state in trackers.items()},
    }
    if worker._is_rollout:
        states["rollout"] = packed(worker.gen_random_states)
    write_states(_path(checkpoint, worker.rank), states)


def load_rank(worker: Any, checkpoint: Path) -> None:
    """Set this rank's generators to what `save_rank` wrote into `checkpoint`.

    With another layout than the checkpoint's no rank has a predecessor, and an older checkpoint has no states. Then
    every rank's generators follow from the run's seed, the step and the rank, and a line says so.

    Raises:
        RandomStatesError: the checkpoint has states, and those of this rank cannot be used.
    """
    if not (checkpoint / DIRECTORY).is_dir():
        return _seed_anew(worker, checkpoint, "it holds no random states")
    saved, layout = read_states(_path(checkpoint, 0)).get("layout"), _layout(worker)
    if not isinstance(saved, dict):
        raise damaged(_path(checkpoint, 0), "it does not say of which layout")
    if saved != layout:
        changed = [
            f"{name} {saved.get(name)}, here {current}"
            for name, current in layout.items()
            if saved.get(name) != current
        ]
        return _seed_anew(worker, checkpoint, f"it was saved by another layout ({'; '.join(changed)})")
    path = _path(checkpoint, worker.rank)
    states = read_states(path)
    try:
        set_host_states(states)
        trackers = {name: unpacked(state) for name, state in states["megatron"].items()}
        rollout = unpacked(states["rollout"]) if worker._is_rollout else None
        # States that are set later are tried here, as one of the wrong form would end the run in its first step.
        for state in (*trackers.values(), rollout, unpacked(states["device"])):
            if state is not None:
                get_torch_device().set_rng_state(state)
    except UNUSABLE as error:
        raise damaged(path, error) from error
    tensor_parallel.get_cuda_rng_tracker().set_states(trackers)
    if rollout is not None:
        worker.gen_random_states = rollout


def seed_rollout(worker: Any, step: int) -> None:
    """Give the rollout's generator the state that it has at `step` (0: the beginning) of a run with this seed.

    The ranks of one engine sample the same tokens, so they get the same state; each engine gets another one.
    """
    engine = worker.rank // _ranks_per_engine(worker)
    device = get_torch_device()
    before = device.get_rng_state()
    device.manual_seed(derived_seed(_seed(worker), "rollout", step, engine))
    worker.gen_random_states = device.get_rng_state()
    device.set_rng_state(before)


def _seed_anew(worker: Any, checkpoint: Path, why: str) -> None:
    from verl.workers.megatron_workers import set_random_seed

    step = int(checkpoint.name.rpartition("_")[2])
    # Megatron's trackers add the rank in the layout to it; NumPy takes no more than 32 bits.
    set_random_seed(derived_seed(_seed(worker), "step", step, bits=31))
    if worker._is_rollout:
        seed_rollout(worker, step)
    if worker.rank == 0:
        logger.warning(
            "%s: %s; sampling goes on from the seed and the step, not as the run that saved it would have",
            checkpoint, why,
        )  # fmt: skip


def _path(checkpoint: Path, rank: int) -> Path:
    return checkpoint / DIRECTORY / f"rank_{rank}.json"


def _seed(worker: Any) -> int:
    return int(worker.config.actor.megatron.seed)


def _ranks_per_engine(worker: Any) -> int:
    rollout = worker.config.rollout
    return int(rollout.tensor_model_parallel_size * rollout.data_parallel_size * rollout.pipeline_model_parallel_size)


def _layout(worker: Any) -> dict[str, Any]:
    """The sizes that must be equal for rank k of one run to do the work of rank k of another."""
    return {
        "device": get_device_name(),
        "ranks": worker.world_size,
        "actor_tensor": parallel_state.get_tensor_model_parallel_world_size(),
        "actor_pipeline": parallel_state.get_pipeline_model_parallel_world_size(),
        "actor_context": parallel_state.get_context_parallel_world_size(),
        "actor_expert": parallel_state.get_expert_model_parallel_world_size(),
        "rollout_ranks": _ranks_per_engine(worker) if worker._is_rollout else 0,
    }
