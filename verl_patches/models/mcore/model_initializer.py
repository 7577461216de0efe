# SPDX-License-Identifier: Apache-2.0
"""Llama 3.1's frequencies of rotation, which are not stretched evenly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from recipe.overlay import patch


@patch(
    "verl.models.mcore.model_initializer:BaseModelInitializer.get_rope_scaling_args",
    why="it stretches all positions by the factor of rope_scaling, whatever its type is; of type 'llama3' only the low "
    "frequencies are stretched, as vLLM does: trainer and sampler would compute different models",
    upstream="verl==0.6.1",
    fingerprint="sha256:62b277c1c4633f6a576d1da7f719aec91508904757345372e18517a700f81894",
    remove_when="verl hands rope_scaling of type 'llama3' to Megatron-core's own option for it",
)
def get_rope_scaling_args(original: Callable[[Any], dict[str, Any]], self: Any) -> dict[str, Any]:
    # NPU-ADAPTATION: rope_scaling of type 'llama3' goes to Megatron-core's option for it
    """Arguments of Megatron-core's GPTModel."""
    scaling = getattr(self.hf_config, "rope_scaling", None)
    if scaling is not None and scaling.get("rope_type", scaling.get("type")) == "llama3":
        return {"rope_scaling": True, "rope_scaling_factor": scaling["factor"]}
    return original(self)
