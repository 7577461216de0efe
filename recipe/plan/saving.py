# SPDX-License-Identifier: Apache-2.0
"""Host memory that a checkpoint takes while it is saved, beside what lies there in every phase.

verl 0.6.1 saves in the process of every rank and waits until all is written (verl/utils/checkpoint/
megatron_checkpoint_manager.py; `async_save` is off). The weights are on the die then, the optimizer is where it is
between updates. Nothing is gathered: Megatron-core 0.12.1 has each tensor written by one of the ranks that hold it,
about the same number of bytes by every one (dist_checkpointing/exchange_utils.py, `distribute_shards_to_ranks`). Copies
are made of all of them before the processes that write are forked (strategies/filesystem_async.py):

* of what is on the die. Megatron-core does not wait for them, so that they are in page-locked memory, which torch keeps
  for later copies (`preload_tensors`); MindSpeed f6688 waits, and they are in ordinary memory (core/megatron_basic/
  megatron_basic.py, its `preload_tensors`);
* of what is in host memory as part of a larger tensor (`prepare_write_data`, `_clone_if_needed`). Such are the
  optimizer states of layers with a gate: gate and up projection are one tensor, saved as two (transformer/mlp.py,
  `apply_swiglu_sharded_factory`);
* with MindSpeed, once more of everything that is in host memory (the same function).
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
    twice = optimizer if run.stacked else 0
    return {
        FROM_DIES: _weights(run, stage) + int(optimizer * (1 - on_host)),
        FROM_HOST: int((_gated_states(run, stage) + twice) * on_host),
    }


def page_locked(run: Subject) -> frozenset[str]:
    """Which of the two kinds are page-locked."""
    return frozenset() if run.stacked else frozenset({FROM_DIES})


def _weights(run: Subject, stage: int) -> int:
    """A die's share of the stage's weights, each of which is written once."""
    layout = run.layout
    tensors = actor_parameters(
        run.model,
        run.stage_start(stage),
        layout.stage_layers[stage],
        tensor=1,
        expert=layout.actor_expert,
        first=stage == 0,
        last=stage == layout.actor_pipeline - 1,
    )
    # The copy of a tied embedding on the last stage is saved as the first one's.
    written = (tensor for tensor in tensors if not (run.model.tied and tensor.name == "output_layer"))
    once = sum(tensor.nbytes * (layout.actor_expert if tensor.expert else 1) for tensor in written)
    return once // (layout.dies // layout.actor_pipeline)


def _gated_states(run: Subject, stage: int) -> int:
    """Optimizer states of a die that belong to gate and up projections."""
    layout = run.layout
    elements = sum(
        tensor.elements / (layout.expert_data if tensor.expert else layout.actor_data)
        for tensor in stage_tensors(run, stage)
        if "linear_fc1" in tensor.name
    )
    return int(elements * OPTIMIZER_STATES * FP32)
