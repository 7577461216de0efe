# SPDX-License-Identifier: Apache-2.0
"""Requests with a seed are sampled by one random number for each token."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from recipe.overlay import patch
from vllm_patches.draws import Draw, by_request, tokens_by_draws


@patch(
    "vllm.v1.sample.ops.topk_topp_sampler:random_sample",
    why="what a seeded request gets depends on how often its generator has been used, which a request that is moved or "
    "prefilled in pieces would have to carry along or rewind; and each such request costs several kernels a step",
    upstream="vllm==0.9.1",
    fingerprint="sha256:075fcc8baa9a3d7d7c23537831f28db78eb65cce742d95bf931cdd521d99a372",
    remove_when="vLLM's random numbers follow from seed and position",
    when=by_request,
)
def random_sample(
    original: Callable[..., torch.Tensor], probs: torch.Tensor, generators: dict[int, Any]
) -> torch.Tensor:
    # NPU-ADAPTATION: requests with a number for this token are sampled by it
    draws = {row: one for row, one in generators.items() if isinstance(one, Draw)}
    return tokens_by_draws(probs, draws) if draws else original(probs, generators)
