# SPDX-License-Identifier: Apache-2.0
"""The frequencies that Megatron-core rotates by, against Hugging Face's for the same config.json."""

from __future__ import annotations

import pytest
import torch
from megatron.core.models.common.embeddings.rotary_pos_embedding import RotaryEmbedding
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from verl.models.mcore.model_initializer import DenseModel

from recipe.models.published import CONFIGS


def frequencies(config: LlamaConfig) -> torch.Tensor:
    """Of a model that verl builds, for each pair of elements of a head; even stretching counts as its own factor."""
    arguments = DenseModel(None, config).get_rope_scaling_args()
    factor = arguments.pop("seq_len_interpolation_factor", 1.0)
    rope = RotaryEmbedding(
        kv_channels=128, rotary_percent=1.0, rotary_base=config.rope_theta, use_cpu_initialization=True, **arguments
    )
    return rope.inv_freq / factor


@pytest.mark.proves("verl_patches.models.mcore.model_initializer:get_rope_scaling_args")
@pytest.mark.parametrize("factor", [8.0, 32.0])
def test_llama_3_rotates_as_hugging_face_does(factor: float) -> None:
    config = LlamaConfig(**CONFIGS["llama3_1_8b"])
    config.rope_scaling["factor"] = factor
    expected, scale = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    assert scale == 1.0
    torch.testing.assert_close(frequencies(config), expected, rtol=1e-6, atol=0)
    # Only the low frequencies are stretched.
    plain = frequencies(LlamaConfig(**CONFIGS["llama3_1_8b"] | {"rope_scaling": None}))
    assert torch.equal(frequencies(config)[0], plain[0]) and frequencies(config)[-1] * factor == plain[-1]


def test_even_stretching_stays_as_it_is() -> None:
    config = LlamaConfig(**CONFIGS["llama3_1_8b"] | {"rope_scaling": {"rope_type": "linear", "factor": 4.0}})
    expected, _ = ROPE_INIT_FUNCTIONS["linear"](config, torch.device("cpu"))
    torch.testing.assert_close(frequencies(config), expected, rtol=1e-6, atol=0)
