# SPDX-License-Identifier: Apache-2.0
"""What MindSpeed must be told about a DeepSeek-V3 model, where its sources are among the upstreams."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def present(upstream: Path) -> bool:
    """Whether MindSpeed lies in this tree of upstream sources; verl then uses it of its own accord."""
    return (upstream / "mindspeed" / "megatron_adaptor.py").is_file()


def transformer_overrides() -> dict[str, Any]:
    """Entries of verl's `override_transformer_config` that make MindSpeed adapt multi-latent attention.

    verl hands them to MindSpeed's `repatch`, which reads them as command line arguments. `multi_latent_attention` and
    not MindSpeed's own name for it, `multi_head_latent_attention`: the latter makes an attention mask of
    `seq_length` x `seq_length`, and the causal kernel takes one of 2048 x 2048 only.
    """
    return {"multi_latent_attention": True, "use_flash_attn": True}
