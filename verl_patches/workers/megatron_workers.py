# SPDX-License-Identifier: Apache-2.0
"""The worker: a rendezvous on its own address, cheap garbage collection, weights and cache that stay or go at the right
time, records of memory, random states kept."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from verl.utils.device import get_device_id

from megatron_patches.core.transformer.moe.replay import take_metrics
from recipe.mismatch.switch import around_log_prob
from recipe.overlay import patch
from verl_patches.cache_release import first_step_is_over, light_releases
from verl_patches.device_memory import record_memory
from verl_patches.routing_replay import COLUMN, asked_for
from verl_patches.trainer.ppo.on_policy import selected
from verl_patches.utils.weight_places import weights_on_die, weights_staying
from verl_patches.workers.actor.update_sums import SUMS, summing
from verl_patches.workers.rank_random_states import load_rank, save_rank, seed_rollout
from verl_patches.workers.rollout.vllm_rollout.kv_cache import preserved_random_states
from vllm_patches.rendezvous import on_address


@patch(
    "verl.workers.megatron_workers:ActorRolloutRefWorker.__init__",
    why="torch's store listens on every interface and asks for no token: whoever reaches the machine can take the "
    "place of a worker",
    upstream="verl==0.6.1",
    fingerprint="sha256:d03e1e97eb4a7b6ae954d40c8991a892334340ea3b24fb2ef92ae4fdba3d6700",
    remove_when="torch's TCP rendezvous binds the address it is given",
)
def init(original: Callable[..., None], self: Any, *args: Any, **kwargs: Any) -> None:
    # NPU-ADAPTATION: the store of the ranks listens on the address that they are given only
    if torch.distributed.is_initialized():
        return original(self, *args, **kwargs)
    with on_address(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), int(os.environ["RANK"])):
        return original(self, *args, **kwargs)


@patch(
    "verl.workers.megatron_workers:ActorRolloutRefWorker.init_model",
    why="verl collects garbage 22 times a step, and each time Python walks the 700,000 objects of Megatron, vLLM and "
    "their imports, 0.4 s: 9 s of a 12 s step of the simulated run; 0.02 s with this",
    upstream="verl==0.6.1",
    fingerprint="sha256:7656410e9d16437b6c3d4b4ae3953cf8349a1d4e2530464a402fe0e5056ad135",
    remove_when="verl no longer collects garbage at every load, offload and cache emptying",
)
def init_model(original: Callable[..., Any], self: Any) -> Any:
    # NPU-ADAPTATION: what exists once a worker is built is left out of later garbage collections
    built = original(self)
    gc.collect()
    gc.freeze()
    return built


@patch(
    "verl.workers.megatron_workers:ActorRolloutRefWorker.generate_sequences",
    why="the weights and the cache of the rollout are given back to the device, piece by piece, for the training to "
    "take them again",
    upstream="verl==0.6.1",
    fingerprint="sha256:7dd3661d66f3ec7691982d9b72f4565bd6563c0e153b06482e84c0457658c074",
    remove_when="verl empties the cache by torch_npu's light way",
)
def generate_sequences(original: Callable[..., Any], self: Any, prompts: Any) -> Any:
    # NPU-ADAPTATION: the cache is released lightly; before the KV cache, in full
    with light_releases():
        return original(self, prompts)


@patch(
    "verl.workers.megatron_workers:ActorRolloutRefWorker.compute_log_prob",
    why="where a step's device memory goes cannot be seen from verl's metrics; and what a phase has freed is given "
    "back to the device, piece by piece, for the next phase to take it again",
    upstream="verl==0.6.1",
    fingerprint="sha256:878503e12316df1c1f8733167f97ae4c6236fb3da47c9d73daa04f5fd685a0a8",
    remove_when="verl reports device memory per phase, and empties the cache by torch_npu's light way",
)
def compute_log_prob(original: Callable[..., Any], self: Any, data: Any) -> Any:
    # NPU-ADAPTATION: records the device's memory after the phase, and releases the cache lightly in it
    with light_releases():
        output = around_log_prob(original, self, data)
    record_memory("log_prob")
    return output


@patch(
    "verl.workers.megatron_workers:ActorRolloutRefWorker.compute_ref_log_prob",
    why="where a step's device memory goes cannot be seen from verl's metrics; and what a phase has freed is given "
    "back to the device, piece by piece, for the next phase to take it again",
    upstream="verl==0.6.1",
    fingerprint="sha256:9cb409f400eaaa4c8094929228daba3e188cd36322a207716f82f79ad08f02f8",
    remove_when="verl reports device memory per phase, and empties the cache by torch_npu's light way",
)
def compute_ref_log_prob(original: Callable[..., Any], self: Any, data: Any) -> Any:
    # NPU-ADAPTATION: records the device's memory after the phase, and releases the cache lightly in it; the reference,
    # another model than the one that sampled, routes by itself
    data.non_tensor_batch.pop(COLUMN, None)
    with light_releases():
        output = original(self, data)
    record_memory("ref")
    return output


@patch(
    "verl.workers.megatron_workers:ActorRolloutRefWorker.update_actor",
    why="the weights leave the die at its end, though the weight sync is next; where a step's device memory goes "
    "cannot be seen from verl's metrics; and without a pass for old log-probabilities nobody tells the actor the "
    "temperature",
    upstream="verl==0.6.1",
    fingerprint="sha256:dd32b6a75b1f044ef2986b32e1c565e15067cf781ced37b9ddcd38aee2e975a8",
    remove_when="verl keeps the weights until the sync, reports device memory per phase, and sets the temperature",
)
def update_actor(original: Callable[..., Any], self: Any, data: Any) -> Any:
    # NPU-ADAPTATION: the weights stay for the sync; the cache is released lightly; the device's memory is recorded;
    # the temperature is the rollout's; an on-policy update sums up what its passes tell; and how far the routers
    # followed the rollout's is counted
    temperature = data.meta_info.setdefault("temperature", self.config.rollout.temperature)
    with weights_staying(), light_releases():
        if selected(self.config.actor):
            with summing(temperature) as sums:
                output = original(self, data)
            output.meta_info["metrics"][SUMS] = sums.values()
        else:
            output = original(self, data)
    if asked_for():
        output.meta_info["metrics"] |= take_metrics(get_device_id())
    first_step_is_over()
    record_memory("update")
    return output


@patch(
    "verl.workers.megatron_workers:ActorRolloutRefWorker._build_rollout",
    why="the rollout's generators are seeded with 1000 + rank whatever the run's seed; and building the engine seeds "
    "all generators of the process with 0, which verl then takes for the rollout's: all engines draw the same numbers",
    upstream="verl==0.6.1",
    fingerprint="sha256:8a98da23130c19d9570c48a60b0de082378f65a6708f02324454e795dd1e570f",
    remove_when="verl seeds the rollout's generators from a key of its configuration, and after building the engine",
)
def _build_rollout(original: Callable[..., None], self: Any, *args: Any, **kwargs: Any) -> None:
    # NPU-ADAPTATION: each engine has a generator that follows from the run's seed, the training keeps its own
    with preserved_random_states():
        original(self, *args, **kwargs)
    seed_rollout(self, step=0)


@patch(
    "verl.workers.megatron_workers:ActorRolloutRefWorker.save_checkpoint",
    why="the state of the rollout's generator is in no checkpoint, and the other generators' only of the first "
    "data-parallel rank: a resumed run samples other answers; and the actor's weights leave the die, though the weight "
    "sync is next",
    upstream="verl==0.6.1",
    fingerprint="sha256:ea72a00ddc2dd07c4f74408457778c2e265539cc7c078c7009e6a163fe917756",
    remove_when="verl saves the generators of every rank, the rollout's among them, and keeps the weights until the "
    "sync",
)
def save_checkpoint(original: Callable[..., None], self: Any, checkpoint_path: str, *args: Any, **kwargs: Any) -> None:
    # NPU-ADAPTATION: beside the actor's directory, every rank's random states; the weights stay where they are
    save_rank(self, Path(checkpoint_path).parent)
    with weights_staying(self._is_offload_param and weights_on_die(self.actor_module)):
        original(self, checkpoint_path, *args, **kwargs)


@patch(
    "verl.workers.megatron_workers:ActorRolloutRefWorker.load_checkpoint",
    why="the generators of all ranks are set to those of the first data-parallel one, and the rollout's not at all",
    upstream="verl==0.6.1",
    fingerprint="sha256:ca2b7e62d720ca2123002a303277a5397852f342c418d5532b6c69f02ee92d58",
    remove_when="verl loads the generators of every rank, the rollout's among them",
)
def load_checkpoint(
    original: Callable[..., None], self: Any, checkpoint_path: str | None, *args: Any, **kwargs: Any
) -> None:
    # NPU-ADAPTATION: every rank's random states after the weights
    original(self, checkpoint_path, *args, **kwargs)
    if checkpoint_path is not None:
        load_rank(self, Path(checkpoint_path).parent)
