# SPDX-License-Identifier: Apache-2.0
"""Routers take the experts that the sampler chose."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from megatron_patches.core.transformer.moe.replay import replay_for, routed
from recipe.overlay import patch
from verl_patches.routing_replay import replayed


@patch(
    "megatron.core.transformer.moe.router:TopKRouter.routing",
    why="where two experts are nearly tied, rounding lets the trainer choose another than the sampler did, and the "
    "sampled tokens' probabilities come apart",
    upstream="megatron-core==0.12.1",
    fingerprint="sha256:37e0243da4c8c711447acdd19a361a8573b57c922cc4465f06170fb75eaf7eb9",
    remove_when="Megatron-core's router takes given experts in the pin",
    when=replayed,
)
def routing(original: Callable[..., Any], self: Any, logits: torch.Tensor) -> Any:
    # NPU-ADAPTATION: with train.routing_replay, the sampler's experts, weighed by the router's own scores
    replay = replay_for(self.layer_number)
    return original(self, logits) if replay is None else routed(original, self, logits, replay)
