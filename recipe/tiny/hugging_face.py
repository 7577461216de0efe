# SPDX-License-Identifier: Apache-2.0
"""The Hugging Face class of a tiny model: the library's own, but for what the pinned transformers 4.52.4 cannot build.

Its DeepSeek-V3 has no place for queries without a latent (``q_lora_rank`` null), which Moonlight's own code has.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch import nn
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, PretrainedConfig
from transformers.models.deepseek_v3 import modeling_deepseek_v3 as library


def model_class(config: PretrainedConfig) -> Any:
    """The class of this configuration's model, with ``_from_config`` and ``from_pretrained``."""
    if config.model_type == "deepseek_v3" and config.q_lora_rank is None:
        return DeepseekV3ForCausalLM
    return MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]


class PlainQueries(library.DeepseekV3Attention):  # type: ignore[misc]
    """Multi-latent attention whose queries come from the hidden states by one matrix, ``q_proj``."""

    def __init__(self, config: PretrainedConfig, layer_idx: int) -> None:
        super().__init__(_with_latent(config), layer_idx)
        self.config, self.q_lora_rank = config, None
        for name in ("q_a_proj", "q_a_layernorm", "q_b_proj"):
            del self._modules[name]
        self.q_proj = nn.Linear(config.hidden_size, self.num_heads * self.qk_head_dim, bias=False)

    def q_a_proj(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """The hidden states, which stand where the library has the latent."""
        return hidden_states

    def q_a_layernorm(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """The hidden states as they are."""
        return hidden_states

    @property
    def q_b_proj(self) -> nn.Module:
        """What makes queries of them."""
        return self.q_proj


# The library's name, which save_pretrained writes into config.json.
class DeepseekV3ForCausalLM(library.DeepseekV3ForCausalLM):  # type: ignore[misc]
    """DeepSeek-V3 without a latent for queries."""

    def __init__(self, config: PretrainedConfig) -> None:
        super().__init__(_with_latent(config))
        self.config = self.model.config = config
        for number, layer in enumerate(self.model.layers):
            layer.self_attn = PlainQueries(config, number)
        self.post_init()


def _with_latent(config: PretrainedConfig) -> PretrainedConfig:
    """A copy that the library can build from; what it builds of the latent is taken off."""
    copy = deepcopy(config)
    copy.q_lora_rank = 1
    return copy
