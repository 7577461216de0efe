# SPDX-License-Identifier: Apache-2.0
"""The weight sync brings each die what it lacks, not the whole model; only behind it does the actor leave the die."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from megatron_patches.core.stage_layers import layers_before, listed
from recipe.overlay import patch
from verl_patches.utils.routes.actor_weights import ActorWeights, direct_sync
from verl_patches.utils.weight_places import free_gradients, kept_until_sync, weights_stay, weights_to_host


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


@patch(
    "verl.utils.megatron_utils:offload_megatron_model_to_cpu",
    why="the actor leaves the die after the update, though the weight sync that follows loads it again; and each time "
    "its weights are copied twice, to ordinary memory and from there to another page-locked block, while the one "
    "before is still held",
    upstream="verl==0.6.1",
    fingerprint="sha256:cfe0ad6bbd935f1bfe3270078855d0234b15cfad61999941fb3a8ae69b9209cf",
    remove_when="verl keeps the actor on the device until the weight sync, and its page-locked memory from one offload "
    "to the next",
    aliases=("verl.workers.megatron_workers:offload_megatron_model_to_cpu",),
    when=kept_until_sync,
)
def offload_megatron_model_to_cpu(original: Callable[..., None], models: list[Any]) -> None:
    # NPU-ADAPTATION: weights stay on the die until the sync, and are copied once, to memory that is kept for them
    if weights_stay():
        free_gradients(models)
        original([])  # collects garbage and empties the cache
    else:
        weights_to_host(models)
        original(models)


@patch(
    "verl.utils.megatron_utils:get_transformer_layer_offset",
    why="the weight sync names a stage's layers by the first and last stage's sizes alone: where others differ, layers "
    "would go to the rollout under the names of others",
    upstream="verl==0.6.1",
    fingerprint="sha256:83ff4541f11c02756aa49d98e13a65c459d26aa783fad8f198c465d9208fd1ce",
    remove_when="the pin has Megatron-core's pipeline_model_parallel_layout, and verl hands it on",
    when=listed,
)
def get_transformer_layer_offset(original: Callable[..., int], pipeline_rank: int, vp_stage: Any, config: Any) -> int:
    # NPU-ADAPTATION: behind the layers listed for the stages before
    return layers_before(pipeline_rank, config)
