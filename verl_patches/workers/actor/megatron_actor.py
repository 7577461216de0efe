# SPDX-License-Identifier: Apache-2.0
"""The actor's passes replay the rollout's choices of experts, where the batch has them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from megatron.core import parallel_state
from megatron.core.transformer.moe.router import TopKRouter
from verl.utils.device import get_device_id
from verl.workers.actor import megatron_actor

from megatron_patches.core.transformer.moe.replay import Replay, replaying
from recipe.overlay import patch
from verl_patches.routing_replay import COLUMN, choices_in, replayed

# In the batch of one pass: each answer's place in it, which micro batches take along.
PLACE = "place_in_batch"


@patch(
    "verl.workers.actor.megatron_actor:MegatronPPOActor.forward_backward_batch",
    why="the routers see packed tokens, and only here is it known of which answers a micro batch is made",
    upstream="verl==0.6.1",
    fingerprint="sha256:54f7b696d764c1a1ffdddcc5d87b976bc3700293aad2d3c544a5cde1c7799e46",
    remove_when="verl's Megatron actor replays the rollout's routing in the pin",
    when=replayed,
)
def forward_backward_batch(
    original: Callable[..., Any], self: Any, data: Any, forward_only: bool = False, *args: Any, **kwargs: Any
) -> Any:
    # NPU-ADAPTATION: with train.routing_replay, the routers take the experts that the rollout chose
    column = data.non_tensor_batch.get(COLUMN)
    if column is None:
        return original(self, data, forward_only, *args, **kwargs)
    here = [
        module.layer_number
        for chunk in self.actor_module
        for module in chunk.modules()
        if isinstance(module, TopKRouter)
    ]
    replay = Replay(choices_in(column), layers_with_experts(self.tf_config), here, get_device_id())
    data.batch[PLACE] = torch.arange(len(data))
    try:
        with _followed(replay, self.tf_config), replaying(replay, updating=not forward_only):
            return original(self, data, forward_only, *args, **kwargs)
    finally:
        del data.batch[PLACE]


def layers_with_experts(config: Any) -> list[int]:
    """The numbers, from 1, of the layers of a Megatron-core TransformerConfig that have experts."""
    every, layers = config.moe_layer_freq, range(config.num_layers)
    has = [layer % every == 0 for layer in layers] if isinstance(every, int) else every
    return [layer + 1 for layer in layers if has[layer]]


@contextmanager
def _followed(replay: Replay, config: Any) -> Iterator[None]:
    """Within the block, every micro batch that the schedule takes is begun in `replay`."""
    if parallel_state.get_context_parallel_world_size() != 1:
        raise NotImplementedError('train.routing_replay = "rollout" does not work with context parallelism')
    tensor = parallel_state.get_tensor_model_parallel_world_size()
    part = (parallel_state.get_tensor_model_parallel_rank(), tensor) if config.sequence_parallel else (0, 1)

    def begun(batches: Iterator[Any]) -> Iterator[Any]:
        for batch in batches:
            lengths = batch["attention_mask"].sum(dim=-1).tolist()
            replay.begin(batch[PLACE].tolist(), lengths, tensor, part)
            yield batch

    def make_batch_generator(*args: Any, **kwargs: Any) -> Any:
        made = real(*args, **kwargs)
        return [begun(one) for one in made] if isinstance(made, list) else begun(made)

    real = megatron_actor.make_batch_generator
    megatron_actor.make_batch_generator = make_batch_generator
    try:
        yield
    finally:
        megatron_actor.make_batch_generator = real
