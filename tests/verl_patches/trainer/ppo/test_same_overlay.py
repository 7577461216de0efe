# SPDX-License-Identifier: Apache-2.0
"""Training starts when all Ray workers have the same patches, and not when one of them lacks one."""

from __future__ import annotations

import importlib
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from verl.trainer.ppo.ray_trainer import RayPPOTrainer

from recipe.overlay import OverlayError
from recipe.recorder import read_events

PATCH = "verl_patches.protocol:concat"


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """A Ray of this test's own, on loopback."""
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as directory:
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # keeps a loopback address as it is
        try:
            ray.init(
                address="local", num_cpus=2, include_dashboard=False, object_store_memory=80 << 20,
                _node_ip_address="127.0.0.1", _temp_dir=directory, log_to_driver=False,
            )  # fmt: skip
            yield
        finally:
            ray.shutdown()
            del os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"]


@pytest.fixture(scope="module")
def workers(cluster: None) -> list[Any]:
    """Two processes with a part of verl and our patches, as trainers' workers have."""

    class Worker:  # local, so that Ray sends the class itself and the process imports nothing before the prelude
        def __init__(self, rank: int) -> None:
            os.environ["RANK"] = str(rank)
            importlib.import_module("verl_patches.prelude_patch")
            importlib.import_module("verl.protocol")

        def pid(self) -> int:
            return os.getpid()

        def change(self, action: str, patch: str) -> None:
            getattr(importlib.import_module("recipe.overlay"), action)(patch)

    started = [ray.remote(num_cpus=1)(Worker).remote(rank) for rank in range(2)]
    ray.get([actor.pid.remote() for actor in started], timeout=180)
    return started


@pytest.fixture
def unpatched(workers: list[Any]) -> Iterator[Any]:
    """One of the workers, which has lost a patch."""
    ray.get(workers[1].change.remote("revert", PATCH))
    yield workers[1]
    ray.get(workers[1].change.remote("apply", PATCH))


@pytest.fixture
def run_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RECIPE_RUN_DIR", str(tmp_path))
    return tmp_path


class Started(Exception):
    """verl's own `fit` was entered."""


class Trainer:
    """A trainer whose actor and reference policy share their processes, as verl's do."""

    def __init__(self, workers: list[Any]) -> None:
        self.actor_rollout_wg = SimpleNamespace(workers=workers)
        self.ref_policy_wg = SimpleNamespace(workers=list(reversed(workers)))
        self.rm_wg = None

    @property
    def config(self) -> Any:
        raise Started


@pytest.mark.proves("verl_patches.trainer.ppo.ray_trainer:fit")
def test_a_worker_without_a_patch_stops_the_run(workers: list[Any], unpatched: Any, run_dir: Path) -> None:
    with pytest.raises(OverlayError) as caught:
        RayPPOTrainer.fit(Trainer(workers))
    message, pid = str(caught.value), ray.get(unpatched.pid.remote())
    assert f"patch {PATCH}: not there in Worker rank=1 (host {socket.gethostname()}, pid {pid})" in message
    (event,) = read_events(run_dir)
    assert (event["kind"], event["workers"]) == ("overlay", 2) and PATCH in event["differences"][0]


def test_equal_workers_train(workers: list[Any], run_dir: Path) -> None:
    with pytest.raises(Started):
        RayPPOTrainer.fit(Trainer(workers))
    (event,) = read_events(run_dir)
    assert (event["workers"], event["differences"]) == (2, [])
    assert event["patches"] >= 1


def test_groups_of_different_processes_are_not_compared_with_one_another(workers: list[Any], unpatched: Any) -> None:
    """A critic may not have imported what an actor has."""
    trainer = Trainer(workers[:1])
    trainer.ref_policy_wg = SimpleNamespace(workers=[unpatched])
    with pytest.raises(Started):
        RayPPOTrainer.fit(trainer)
