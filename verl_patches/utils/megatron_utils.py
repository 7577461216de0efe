# SPDX-License-Identifier: Apache-2.0
"""The weight sync brings each die what it lacks, not the whole model."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from recipe.overlay import patch
from verl_patches.utils.routes.actor_weights import ActorWeights, direct_sync


@patch(
    "verl.utils.megatron_utils:per_tensor_generator",
    why="every tensor is broadcast over the pipeline and every expert gathered over its group, so that the whole model "
    "passes every die, to keep one expert of 256 in each layer: 1.2 TiB a die and sync on 256 dies, where 18 GiB are "
    "what it lacks",
    upstream="verl==0.6.1",
    fingerprint="sha256:3da97dbec333b7cc85bf1e6cfa20304ba2e6ea055db98b702648d60eed2019fa",
    remove_when="verl sends each rank only what its rollout engine keeps",
    when=direct_sync,
)
def per_tensor_generator(
    original: Callable[..., Iterable[Any]],
    actor_module: Any,
    model_config: Any,
    weight_converter: Any,
    transformer_config: Any,
    *args: Any,
    **kwargs: Any,
) -> ActorWeights:
    # NPU-ADAPTATION: a rollout that can takes the weights by the routes between the two layouts
    stock = original(actor_module, model_config, weight_converter, transformer_config, *args, **kwargs)
    return ActorWeights(actor_module, weight_converter.hf_config, transformer_config, stock)
