# SPDX-License-Identifier: Apache-2.0
"""Flash attention with the softmax scale that the layer was built with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from recipe.overlay import patch


@patch(
    "mindspeed.core.transformer.flash_attention.flash_attention.adaptor:dot_product_attention_forward_impl",
    why="it takes 1/sqrt(head dim) for every layer without query-key layer scaling and drops the softmax_scale that "
    "multi-latent attention builds its layers with (yarn's mscale^2/sqrt(192) for DeepSeek-V3): trainer and sampler "
    "compute different models",
    upstream="mindspeed==0.12.1",
    fingerprint="sha256:2e20fb782a4eb058bf6f39b45ecce03a755103596bad3b6ee98746e5b47d8c7a",
    remove_when="MindSpeed's commit b49b42bb, since which its flash attention reads self.softmax_scale, is in the pin",
)
def dot_product_attention_forward_impl(
    original: Callable[..., torch.Tensor], self: Any, *args: Any, **kwargs: Any
) -> torch.Tensor:
    """Attention of a Megatron-core DotProductAttention layer.

    MindSpeed installs this function again at every `repatch` and takes it from its module each time, so that the patch
    outlives all of them.
    """
    softmax = self.scale_mask_softmax
    if softmax.scale is not None:
        return original(self, *args, **kwargs)
    # NPU-ADAPTATION: a scale that is set, and not used otherwise, makes upstream take the layer's softmax_scale
    softmax.scale = 1.0
    try:
        return original(self, *args, **kwargs)
    finally:
        softmax.scale = None
