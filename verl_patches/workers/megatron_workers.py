# SPDX-License-Identifier: Apache-2.0
"""The worker: a rendezvous on its own address, cheap garbage collection, and a record of memory after each phase."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from typing import Any

import torch

from recipe.overlay import patch
from verl_patches.device_memory import record_memory
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
    "verl.workers.megatron_workers:ActorRolloutRefWorker.compute_log_prob",
    why="where a step's device memory goes cannot be seen from verl's metrics",
    upstream="verl==0.6.1",
    fingerprint="sha256:878503e12316df1c1f8733167f97ae4c6236fb3da47c9d73daa04f5fd685a0a8",
    remove_when="verl reports device memory per phase",
)
def compute_log_prob(original: Callable[..., Any], self: Any, data: Any) -> Any:
    # NPU-ADAPTATION: records the device's memory after the phase
    output = original(self, data)
    record_memory("log_prob")
    return output


@patch(
    "verl.workers.megatron_workers:ActorRolloutRefWorker.compute_ref_log_prob",
    why="where a step's device memory goes cannot be seen from verl's metrics",
    upstream="verl==0.6.1",
    fingerprint="sha256:9cb409f400eaaa4c8094929228daba3e188cd36322a207716f82f79ad08f02f8",
    remove_when="verl reports device memory per phase",
)
def compute_ref_log_prob(original: Callable[..., Any], self: Any, data: Any) -> Any:
    # NPU-ADAPTATION: records the device's memory after the phase
    output = original(self, data)
    record_memory("ref")
    return output


@patch(
    "verl.workers.megatron_workers:ActorRolloutRefWorker.update_actor",
    why="where a step's device memory goes cannot be seen from verl's metrics",
    upstream="verl==0.6.1",
    fingerprint="sha256:dd32b6a75b1f044ef2986b32e1c565e15067cf781ced37b9ddcd38aee2e975a8",
    remove_when="verl reports device memory per phase",
)
def update_actor(original: Callable[..., Any], self: Any, data: Any) -> Any:
    # NPU-ADAPTATION: records the device's memory after the phase
    output = original(self, data)
    record_memory("update")
    return output
