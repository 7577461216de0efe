# SPDX-License-Identifier: Apache-2.0
"""The weight sync from trainer to rollout: verl/utils/megatron_utils.py, `per_tensor_generator`.

Tensor by tensor: broadcast over the pipeline, then experts gathered over the expert group and others over the tensor
group, then renamed and loaded into vLLM's weights. Or, with `rollout.direct_sync`, by the routes on which each die is
sent what it lacks (verl_patches/utils/routes/).
"""

from __future__ import annotations

from collections.abc import Sequence

from recipe.plan.parameters import BF16, total_parameters
from recipe.plan.routes import peak_bytes, routes_of, world
from recipe.plan.stages import stage_tensors
from recipe.plan.subject import Subject
from recipe.runfile.engines import syncs_directly
from recipe.runfile.errors import ConfigError
from recipe.runfile.schema import MIB
from verl_patches.utils.routes.layouts import LayoutError
from verl_patches.utils.routes.routes import Routes


def buffer_bytes(run: Subject) -> list[int]:
    """Most bytes of the sync at once, on a die of each stage: of a direct one its buffer, else as on a die of another
    stage than the fullest tensor.

    `per_tensor_generator` keeps in its variables what it made of a tensor until it has made the same of the next: the
    broadcast copy, the list of gathered pieces, and what they were copied into. So the pieces of an expert are there
    while memory is taken for those of the next one, and the last piece and its copy until then, whatever comes between.
    """
    if syncs_directly(run.config, run.model):
        return _direct_buffer_bytes(run)
    layout, most = run.layout, 0
    copy = held = of_expert = assembled = 0
    for stage in range(layout.actor_pipeline):
        for tensor in stage_tensors(run, stage):
            group = layout.actor_expert if tensor.expert else layout.actor_tensor
            copy_before, copy = copy, tensor.nbytes if layout.actor_pipeline > 1 else 0
            pieces = group * tensor.nbytes if group > 1 else 0
            most = max(most, copy_before + copy + held, copy + held + pieces)
            if tensor.expert and group > 1:  # each piece is copied by itself
                of_expert, assembled = 2 * tensor.nbytes, 0
                held = pieces + tensor.nbytes
            else:  # also where there is only one piece
                most = max(most, copy + pieces + of_expert + assembled + group * tensor.nbytes)
                assembled = group * tensor.nbytes
                held = of_expert + assembled
    return [most] * layout.actor_pipeline


def received_bytes(run: Subject, among: Sequence[int] | None = None) -> dict[str, int]:
    """Bytes that a die receives in one sync, by collective: the whole model passes every die.

    Args:
        run: the run.
        among: stages of the dies that are looked at; the one that receives most counts. Default: all.
    """
    layout = run.layout
    stages = range(layout.actor_pipeline)
    if syncs_directly(run.config, run.model):
        received, each = received_directly(run), layout.dies // layout.actor_pipeline
        looked_at = stages if among is None else among
        return {"direct": max(max(received[stage * each : (stage + 1) * each]) for stage in looked_at)}
    dense = sum(tensor.nbytes for stage in stages for tensor in stage_tensors(run, stage) if not tensor.expert)
    expert = sum(tensor.nbytes for stage in stages for tensor in stage_tensors(run, stage) if tensor.expert)
    own = (sum(tensor.nbytes for tensor in stage_tensors(run, stage)) for stage in (stages if among is None else among))
    return {
        "pipeline broadcast": dense + expert - min(own),
        "expert all-gather": expert * (layout.actor_expert - 1),
        "tensor all-gather": dense * (layout.actor_tensor - 1),
    }


def received_directly(run: Subject) -> list[int]:
    """Bytes that each die, by its rank, receives in a direct sync: those of the weights that it lacks."""
    figures = world(_routes_of(run))
    return [experts.received + dense.received for experts, dense in zip(figures.experts, figures.dense, strict=True)]


def _direct_buffer_bytes(run: Subject) -> list[int]:
    limit, stages = run.config.rollout.direct_sync_buffer_mib * MIB, run.layout.actor_pipeline
    if total_parameters(run.model) * BF16 > 64 * limit:
        return [limit] * stages  # most of a model many times as large is on the way in some round
    peaks, each = peak_bytes(_routes_of(run)), run.layout.dies // stages
    return [max(peaks[stage * each : (stage + 1) * each]) for stage in range(stages)]


def _routes_of(run: Subject) -> Routes:
    try:
        return routes_of(run)
    except LayoutError as error:
        raise ConfigError(f"[rollout] direct_sync: {error}") from error
