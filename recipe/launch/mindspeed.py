# SPDX-License-Identifier: Apache-2.0
"""What MindSpeed must be told about a DeepSeek-V3 model, where its sources are among the upstreams."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from recipe.launch.config import RunConfig
from recipe.launch.errors import ConfigError


def transformer_overrides() -> dict[str, Any]:
    """Entries of verl's `override_transformer_config` that make MindSpeed adapt multi-latent attention.

    verl hands them to MindSpeed's `repatch`, which reads them as command line arguments. `multi_latent_attention` and
    not MindSpeed's own name for it, `multi_head_latent_attention`: the latter makes an attention mask of
    `seq_length` x `seq_length`, and the causal kernel takes one of 2048 x 2048 only.
    """
    return {"multi_latent_attention": True, "use_flash_attn": True}


def overrides(config: RunConfig, upstream: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """`transformer_overrides` where MindSpeed lies in the tree of upstream sources, which verl then uses; else {}.

    Raises:
        ConfigError: a layout that MindSpeed refuses.
    """
    if not (upstream / "mindspeed").is_dir():
        return {}
    if config.actor.tensor_parallel > 1:
        raise ConfigError(
            f"[actor] tensor_parallel is {config.actor.tensor_parallel}, which MindSpeed refuses for multi-latent "
            "attention; set it to 1, and use expert_parallel and stage_layers instead"
        )
    say("MindSpeed is among the upstreams and adapts Megatron-core")
    return transformer_overrides()
