# SPDX-License-Identifier: Apache-2.0
"""The forward pass of an update notes the entropy, which verl computes in the pass for the old log-probabilities."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch

from recipe.overlay import patch
from verl_patches.workers.actor.update_sums import entropy_of, running_sums


@patch(
    "verl.models.mcore.registry:get_mcore_forward_fn",
    why="verl computes the entropy in the pass for the old log-probabilities only, which on-policy updates do without, "
    "or in the update with a gradient through it and a copy of all logits",
    upstream="verl==0.6.1",
    fingerprint="sha256:2a34c5051280d16479ffa0550439d7f99f27c086f008863623fcfee7efd6fe84",
    remove_when="verl's Megatron actor computes the entropy of an update without a gradient",
)
def get_mcore_forward_fn(original: Callable[..., Any], hf_config: Any) -> Callable[..., Any]:
    # NPU-ADAPTATION: in an on-policy update the entropy is computed from the logits of its forward pass
    forward = original(hf_config)
    sums = running_sums()
    if sums is None:
        return forward

    @wraps(forward)
    def forward_with_entropy(*args: Any, logits_processor: Callable[..., Any], **kwargs: Any) -> Any:
        def with_entropy(
            logits: torch.Tensor, label: torch.Tensor, label_mask: torch.Tensor
        ) -> dict[str, torch.Tensor]:
            entropy = entropy_of(logits, label_mask, sums.temperature)
            return {**logits_processor(logits, label, label_mask), "entropy": entropy}

        output = forward(*args, logits_processor=with_entropy, **kwargs)
        if isinstance(output, dict):  # on the last pipeline stage
            sums.note_entropy(output.pop("entropy"))
        return output

    return forward_with_entropy
