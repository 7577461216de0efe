# SPDX-License-Identifier: Apache-2.0
"""Host memory that a checkpoint takes while it is saved, beside what lies there in every phase.

verl 0.6.1 saves in the process of every rank and waits until all is written (verl/utils/checkpoint/
megatron_checkpoint_manager.py; `async_save` is off). The weights are on the die then, the optimizer is where it is
between updates. Nothing is gathered: Megatron-core 0.12.1 has each tensor written by one of the ranks that hold it,
about the same number of bytes by every one (dist_checkpointing/exchange_utils.py, `distribute_shards_to_ranks`). Before
the processes that write are forked, two kinds of copies are made, all of them before the first is written
(dist_checkpointing/strategies/filesystem_async.py):

* what is on the die, copied to the host and not waited for, so in page-locked memory (`preload_tensors`), which torch
  keeps for later copies;
* what is in host memory, but part of a larger tensor (`prepare_write_data`, `_clone_if_needed`). Such are the optimizer
  states of layers with a gate: gate and up projection are one tensor, saved as two (transformer/mlp.py,
  `apply_swiglu_sharded_factory`).
"""

from __future__ import annotations

from recipe.plan.parameters import FP32, actor_parameters
from recipe.plan.shards import OPTIMIZER_STATES
from recipe.plan.stages import stage_buffers, stage_tensors
from recipe.plan.subject import Subject
from recipe.runfile.schema import DIE, HOST

FROM_DIES, FROM_HOST = "checkpoint: copied from the dies", "checkpoint: copied on the host"


def saved_copies(run: Subject, stage: int) -> dict[str, int]:
    """Bytes of both kinds of copies for a die of a stage, on the average of its dies; empty where nothing is saved."""
    if not run.config.run.save_every:
        return {}
    optimizer = stage_buffers(run, stage).optimizer_bytes
    on_host = {DIE: 0.0, HOST: run.config.actor.host_share}.get(run.config.actor.optimizer, 1.0)
    return {
        FROM_DIES: _weights(run, stage) + int(optimizer * (1 - on_host)),
        FROM_HOST: int(_gated_states(run, stage) * on_host),
    }


def _weights(run: Subject, stage: int) -> int:
    """A die's share of the stage's weights, each of which is written once."""
    layout = run.layout
    last = stage == layout.actor_pipeline - 1
    once = actor_parameters(
        run.model, run.stage_start(stage), layout.stage_layers[stage], tensor=1, expert=1, first=stage == 0, last=last
    )
    return sum(tensor.nbytes for tensor in once) // (layout.dies // layout.actor_pipeline)


def _gated_states(run: Subject, stage: int) -> int:
    """Optimizer states of a die that belong to gate and up projections."""
    layout = run.layout
    elements = sum(
        tensor.elements / (layout.expert_data if tensor.expert else layout.actor_data)
        for tensor in stage_tensors(run, stage)
        if "linear_fc1" in tensor.name
    )
    return int(elements * OPTIMIZER_STATES * FP32)
