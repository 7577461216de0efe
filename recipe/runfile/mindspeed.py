# SPDX-License-Identifier: Apache-2.0
"""Where MindSpeed takes part in a run, what it refuses there, and what it must be told about the model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recipe.models.architecture import Architecture, GroupedQueryArchitecture
from recipe.runfile.errors import ConfigError
from recipe.runfile.schema import CUDA, NPU, SWAPPED, RunConfig

TENSOR_PARALLEL, SWAPPED_OPTIMIZER = "tensor parallel", "swapped optimizer"


@dataclass(frozen=True)
class Refusal:
    """A setting that MindSpeed rules out, or that needs it; `rule` is a stable name."""

    rule: str
    found: str
    expected: str
    fix: str


def takes_part(config: RunConfig, upstream: Path) -> bool:
    """Whether MindSpeed is used: always on NPUs, on simulated ones if the upstream tree has it, never on GPUs."""
    device = config.cluster.device
    return device == NPU or (device != CUDA and (upstream / "mindspeed").is_dir())


def refusals(config: RunConfig, upstream: Path, model: Architecture | None = None) -> Iterator[Refusal]:
    """Everything in the run file that MindSpeed, or its absence, rules out.

    Args:
        config: the run.
        upstream: the tree of the upstream sources.
        model: the run's; a model whose sizes are not known is taken for a DeepSeek-V3.
    """
    actor, has_mindspeed = config.actor, takes_part(config, upstream)
    if has_mindspeed and actor.tensor_parallel > 1 and not isinstance(model, GroupedQueryArchitecture):
        yield Refusal(
            TENSOR_PARALLEL,
            f"[actor] tensor_parallel = {actor.tensor_parallel} with MindSpeed, which refuses it for multi-latent "
            "attention",
            "1",
            "set it to 1, and use expert_parallel and stage_layers instead",
        )
    if not has_mindspeed and actor.optimizer == SWAPPED:
        yield Refusal(
            SWAPPED_OPTIMIZER,
            f'[actor] optimizer = "{SWAPPED}" with device {config.cluster.device}'
            + ("" if config.cluster.device == CUDA else f" and no MindSpeed in {upstream}"),
            "MindSpeed, which swaps it",
            'set it to "offloaded"',
        )


def transformer_overrides(model: Architecture | None = None) -> dict[str, Any]:
    """Entries of verl's `override_transformer_config` that make MindSpeed adapt the attention of the model.

    verl hands them to MindSpeed's `repatch`, which reads them as command line arguments. `multi_latent_attention` and
    not MindSpeed's own name for it, `multi_head_latent_attention`: the latter makes an attention mask of
    `seq_length` x `seq_length`, and the causal kernel takes one of 2048 x 2048 only. `use_fused_rmsnorm`, because
    MindSpeed takes its fused kernel only in a process that has a norm which is not fused with a projection: of queries
    and keys, of a latent, or the last stage's final one. Other stages of Qwen2 and Llama have none.
    """
    flash = {"use_flash_attn": True}
    if isinstance(model, GroupedQueryArchitecture):
        return {**flash, "use_fused_rmsnorm": True}
    return {"multi_latent_attention": True, **flash}


def overrides(config: RunConfig, upstream: Path, model: Architecture | None = None) -> dict[str, Any]:
    """The settings for MindSpeed, empty where it takes no part; arguments as for `refusals`.

    Raises:
        ConfigError: the first of the `refusals`.
    """
    for refusal in refusals(config, upstream, model):
        raise ConfigError(f"{refusal.found}; expected {refusal.expected}; {refusal.fix}")
    if not takes_part(config, upstream):
        return {}
    actor = config.actor
    values = transformer_overrides(model)
    if actor.optimizer == SWAPPED:
        values["swap_optimizer"] = True
    if len(set(actor.stage_layers)) > 1:
        # One list for each stage, with one entry for each of its virtual stages.
        values["pipeline_num_transformer_layers"] = [[layers] for layers in actor.stage_layers]
    return values
