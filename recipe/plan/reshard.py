# SPDX-License-Identifier: Apache-2.0
"""The weight sync from trainer to rollout: verl/utils/megatron_utils.py, `per_tensor_generator`.

Tensor by tensor: broadcast over the pipeline, then experts gathered over the expert group and others over the tensor
group, then renamed and loaded into vLLM's weights.
"""

from __future__ import annotations

from collections.abc import Sequence

from recipe.plan.stages import stage_tensors
from recipe.plan.subject import Subject


def buffer_bytes(run: Subject) -> int:
    """Most bytes of the sync at once: a tensor's broadcast copy, its gathered pieces, and what they are copied into."""
    layout, most = run.layout, 0
    for stage in range(layout.actor_pipeline):
        for tensor in stage_tensors(run, stage):
            group = layout.actor_expert if tensor.expert else layout.actor_tensor
            broadcast = tensor.nbytes if layout.actor_pipeline > 1 else 0
            # Gathered pieces are copied into a new tensor, also where there is only one; each expert is a tensor of its
            # own.
            assembled = tensor.nbytes if tensor.expert else group * tensor.nbytes
            gathered = (group * tensor.nbytes if group > 1 else 0) + assembled
            most = max(most, broadcast + gathered)
    return most


def received_bytes(run: Subject, among: Sequence[int] | None = None) -> dict[str, int]:
    """Bytes that a die receives in one sync, by collective: the whole model passes every die.

    Args:
        run: the run.
        among: stages of the dies that are looked at; the one that receives most counts. Default: all.
    """
    layout = run.layout
    stages = range(layout.actor_pipeline)
    dense = sum(tensor.nbytes for stage in stages for tensor in stage_tensors(run, stage) if not tensor.expert)
    expert = sum(tensor.nbytes for stage in stages for tensor in stage_tensors(run, stage) if tensor.expert)
    own = (sum(tensor.nbytes for tensor in stage_tensors(run, stage)) for stage in (stages if among is None else among))
    return {
        "pipeline broadcast": dense + expert - min(own),
        "expert all-gather": expert * (layout.actor_expert - 1),
        "tensor all-gather": dense * (layout.actor_tensor - 1),
    }
