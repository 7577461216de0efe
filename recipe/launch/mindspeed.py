# SPDX-License-Identifier: Apache-2.0
"""What MindSpeed must be told about a DeepSeek-V3 model, where its sources are among the upstreams."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from recipe.launch.config import CUDA, SIM, SWAPPED, RunConfig
from recipe.launch.errors import ConfigError


def transformer_overrides() -> dict[str, Any]:
    """Entries of verl's `override_transformer_config` that make MindSpeed adapt multi-latent attention.

    verl hands them to MindSpeed's `repatch`, which reads them as command line arguments. `multi_latent_attention` and
    not MindSpeed's own name for it, `multi_head_latent_attention`: the latter makes an attention mask of
    `seq_length` x `seq_length`, and the causal kernel takes one of 2048 x 2048 only.
    """
    return {"multi_latent_attention": True, "use_flash_attn": True}


def overrides(config: RunConfig, upstream: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """What MindSpeed is told, where it takes part: on NPUs always, simulated ones where the upstream tree has it.

    Raises:
        ConfigError: a layout that MindSpeed refuses, or an option of MindSpeed's without it.
    """
    simulated, actor = config.cluster.device == SIM, config.actor
    if config.cluster.device == CUDA or (simulated and not (upstream / "mindspeed").is_dir()):
        if actor.optimizer == SWAPPED:
            raise ConfigError(
                f'[actor] optimizer = "{SWAPPED}" is MindSpeed\'s, which does not take part in this run; set it to '
                '"offloaded"'
            )
        return {}
    if actor.tensor_parallel > 1:
        raise ConfigError(
            f"[actor] tensor_parallel is {actor.tensor_parallel}, which MindSpeed refuses for multi-latent "
            "attention; set it to 1, and use expert_parallel and stage_layers instead"
        )
    if simulated:
        say("MindSpeed is among the upstreams and adapts Megatron-core")
    values = transformer_overrides()
    if actor.optimizer == SWAPPED:
        values["swap_optimizer"] = True
    if len(set(actor.stage_layers)) > 1:
        # One list for each stage, with one entry for each of its virtual stages.
        values["pipeline_num_transformer_layers"] = [[layers] for layers in actor.stage_layers]
    return values
