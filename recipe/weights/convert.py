# SPDX-License-Identifier: Apache-2.0
"""Hugging Face directory -> Megatron checkpoint: opens, plans, checks, writes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from recipe.weights import key_maps, torch_dist
from recipe.weights.errors import WeightsError
from recipe.weights.hf_checkpoint import HfCheckpoint, open_checkpoint
from recipe.weights.plan import Plan, make_plan


def plan_conversion(source: Path) -> tuple[HfCheckpoint, Plan]:
    """Read the headers of a Hugging Face checkpoint and lay its tensors into Megatron's names."""
    checkpoint = open_checkpoint(source)
    layout = key_maps.layout_of(checkpoint.config, source / "config.json")
    if checkpoint.config.get("quantization_config"):
        raise WeightsError(f"{source}/config.json: has a quantization_config; cast the checkpoint to BF16 first")
    return checkpoint, make_plan(checkpoint, layout, key_maps.droppable(checkpoint.tensors, checkpoint.config))


def convert(
    source: Path,
    output: Path,
    *,
    workers: int = 1,
    overwrite: bool = False,
    progress: Callable[[int], None] = lambda nbytes: None,
) -> Plan:
    """Convert `source` to `output`; returns the plan that was carried out.  Raises WeightsError."""
    _, plan = plan_conversion(source)
    torch_dist.check_output(source, output, overwrite)
    torch_dist.check_space(output, torch_dist.bytes_needed(plan))
    torch_dist.write(plan, output, workers, progress)
    return plan
