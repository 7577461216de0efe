# SPDX-License-Identifier: Apache-2.0
"""The worker's phases are recorded, its garbage collections are cheap, and verl's dispatch marks survive."""

from __future__ import annotations

import gc
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from omegaconf import OmegaConf
from verl.protocol import DataProto
from verl.single_controller.base.decorator import MAGIC_ATTR
from verl.workers import megatron_workers
from verl.workers.megatron_workers import ActorRolloutRefWorker

from recipe.recorder import read_events
from verl_patches.routing_replay import COLUMN, OPTION, column_of
from verl_patches.workers import megatron_workers as ours

PHASES = {
    "compute_log_prob": "verl_patches.workers.megatron_workers:compute_log_prob",
    "compute_ref_log_prob": "verl_patches.workers.megatron_workers:compute_ref_log_prob",
    "update_actor": "verl_patches.workers.megatron_workers:update_actor",
}


@pytest.fixture
def run_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RECIPE_RUN_DIR", str(tmp_path))
    return tmp_path


def worker(**fields: Any) -> Any:
    """What the three phases touch of a worker, with a policy that computes zeros."""
    config = OmegaConf.create(
        {
            "model": {},
            "actor": {
                "megatron": {"dtype": "bfloat16"},
                "ppo_micro_batch_size_per_gpu": 1,
                "ppo_epochs": 1,
                "policy_loss": {"loss_mode": "vanilla"},
            },
            "rollout": {"temperature": 1.0}
            | dict.fromkeys(("log_prob_micro_batch_size_per_gpu", "log_prob_max_token_len_per_gpu"), 1)
            | {"log_prob_use_dynamic_bsz": False},
            "ref": dict.fromkeys(("log_prob_micro_batch_size_per_gpu", "log_prob_max_token_len_per_gpu"), 1)
            | {"log_prob_use_dynamic_bsz": False},
        }
    )
    policy = SimpleNamespace(
        compute_log_prob=lambda data, calculate_entropy: (torch.zeros(2, 3), torch.zeros(2, 3)),
        make_minibatch_iterator=lambda data: [],
        update_policy=lambda dataloader: {"actor/pg_loss": [0.0]},
    )
    plain = {
        "_is_actor": True,
        "_is_ref": True,
        "_is_rollout": False,
        "_is_offload_param": False,
        "_is_offload_optimizer": False,
        "_ref_is_offload_param": False,
        "bridge": None,
        "config": config,
        "actor": policy,
        "ref_policy": policy,
        "world_size": 1,
        "actor_optimizer": None,
        "actor_optimizer_scheduler": SimpleNamespace(step=lambda increment: None),
        "flops_counter": SimpleNamespace(estimate_flops=lambda tokens, seconds: (0.0, 1.0)),
    }
    return SimpleNamespace(**(plain | fields))


def batch() -> DataProto:
    return DataProto.from_dict(tensors={"x": torch.zeros(2, 3)}, meta_info={"global_token_num": [3, 3]})


@pytest.mark.proves(*PHASES.values())
def test_each_phase_leaves_a_record(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from verl.utils.megatron import optimizer

    monkeypatch.setattr(optimizer, "get_megatron_last_lr", lambda _: 1e-6)
    for method in PHASES:
        getattr(ActorRolloutRefWorker, method)(worker(), batch())
    events = read_events(run_dir)
    assert [(event["kind"], event["phase"]) for event in events] == [
        ("memory", "log_prob"),
        ("memory", "ref"),
        ("memory", "update"),
    ]
    assert all(event["rss"] > 0 for event in events)


def test_the_reference_routes_by_itself_and_the_update_tells_how_far_the_actor_did_not(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from verl.utils.megatron import optimizer

    seen: dict[str, bool] = {}

    def policy(name: str) -> Any:
        def compute_log_prob(data: DataProto, calculate_entropy: bool) -> tuple[torch.Tensor, torch.Tensor]:
            seen[name] = COLUMN in data.non_tensor_batch
            return torch.zeros(2, 3), torch.zeros(2, 3)

        plain = worker().actor
        return SimpleNamespace(**{**vars(plain), "compute_log_prob": compute_log_prob})

    monkeypatch.setenv(OPTION, "rollout")
    monkeypatch.setattr(optimizer, "get_megatron_last_lr", lambda _: 1e-6)
    monkeypatch.setattr(ours, "take_metrics", lambda device: {"training/routing_replayed": 1.0})
    made = worker(actor=policy("actor"), ref_policy=policy("reference"))
    for method in ("compute_log_prob", "compute_ref_log_prob"):
        data = batch()
        data.non_tensor_batch[COLUMN] = column_of([np.zeros((3, 1, 2), np.uint8)] * 2)
        getattr(ActorRolloutRefWorker, method)(made, data)
    assert seen == {"actor": True, "reference": False}
    metrics = ActorRolloutRefWorker.update_actor(made, batch()).meta_info["metrics"]
    assert metrics["training/routing_replayed"] == 1.0 and metrics["actor/pg_loss"] == [0.0]
    monkeypatch.setenv(OPTION, "off")
    assert "training/routing_replayed" not in ActorRolloutRefWorker.update_actor(made, batch()).meta_info["metrics"]


class Met(Exception):
    """Raised where torch would go on, with the addresses on which this process listens for the other ranks."""


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.proves("verl_patches.workers.megatron_workers:init")
def test_the_ranks_meet_on_the_address_they_are_given(monkeypatch: pytest.MonkeyPatch, rank: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    for name, value in {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank)}.items():
        monkeypatch.setenv(name, value)

    def meet(self: Any) -> None:
        store = torch.distributed.TCPStore("127.0.0.1", port, 1, True, multi_tenant=True) if rank == 0 else None
        connections = psutil.Process().net_connections("tcp")
        listening = [
            connection.laddr.ip
            for connection in connections
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
        ]
        del store
        raise Met(listening)

    monkeypatch.setattr(megatron_workers.Worker, "__init__", meet)
    with pytest.raises(Met) as met:
        ActorRolloutRefWorker.__init__(SimpleNamespace(), OmegaConf.create({}), "actor")
    assert met.value.args == (["127.0.0.1"] if rank == 0 else [],)


@pytest.mark.parametrize("method", [*PHASES, "init_model"])
def test_the_dispatch_marks_that_ray_reads_are_kept(method: str) -> None:
    assert {"dispatch_mode", "execute_mode", "blocking"} <= set(
        getattr(getattr(ActorRolloutRefWorker, method), MAGIC_ATTR)
    )


@pytest.fixture
def unfrozen() -> Iterator[None]:
    gc.unfreeze()
    yield
    gc.unfreeze()


@pytest.mark.proves("verl_patches.workers.megatron_workers:init_model")
def test_a_built_worker_is_not_walked_again_and_what_comes_later_is_freed(unfrozen: None) -> None:
    built = [[[]] for _ in range(200_000)]
    before = collection_time()
    ActorRolloutRefWorker.init_model(worker(_is_actor=False, _is_ref=False))
    assert gc.get_freeze_count() > len(built)
    assert collection_time() < before / 5

    allocated = torch.npu.memory_allocated()
    cycle: list[Any] = [torch.empty(1 << 20, dtype=torch.uint8, device="npu")]
    cycle.append(cycle)
    del cycle
    assert torch.npu.memory_allocated() >= allocated + (1 << 20)
    megatron_workers.aggressive_empty_cache(force_sync=True)
    assert torch.npu.memory_allocated() == allocated


def collection_time() -> float:
    """Seconds of this process in the fastest of three full collections."""
    times = []
    for _ in range(3):
        start = time.process_time()
        gc.collect()
        times.append(time.process_time() - start)
    return min(times)
