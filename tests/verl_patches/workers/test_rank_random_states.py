# SPDX-License-Identifier: Apache-2.0
"""What a rank draws after a resume: as it would have, or from seed, step and rank where no rank did its work before."""

from __future__ import annotations

import json
import logging
import random
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from megatron.core import parallel_state, tensor_parallel
from omegaconf import OmegaConf
from verl.workers import megatron_workers
from verl.workers.megatron_workers import ActorRolloutRefWorker, set_random_seed

from verl_patches.random_states import DIRECTORY, RandomStatesError
from verl_patches.workers.rank_random_states import load_rank, save_rank, seed_rollout
from verl_patches.workers.rollout.vllm_rollout.kv_cache import preserved_random_states


@pytest.fixture(scope="module", autouse=True)
def one_process_group() -> Iterator[None]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    torch.npu.set_device(0)
    with preserved_random_states():
        torch.distributed.init_process_group("hccl", init_method=f"tcp://127.0.0.1:{port}", rank=0, world_size=1)
        parallel_state.initialize_model_parallel()
        yield
        parallel_state.destroy_model_parallel()
        torch.distributed.destroy_process_group()


def worker(rank: int = 0, seed: int = 1, rollout_tensor: int = 1, **fields: Any) -> Any:
    """What these states touch of an ActorRolloutRefWorker."""
    sizes = {"data_parallel_size": 1, "pipeline_model_parallel_size": 1, "tensor_model_parallel_size": rollout_tensor}
    config = {"actor": {"megatron": {"seed": seed}}, "rollout": sizes}
    plain = {"rank": rank, "world_size": 1, "_is_rollout": True, "_is_actor": True, "config": OmegaConf.create(config)}
    return SimpleNamespace(**(plain | fields))


def seeded(rank_worker: Any, seed: int = 5) -> Any:
    set_random_seed(seed)
    seed_rollout(rank_worker, step=0)
    return rank_worker


def draws(rank_worker: Any) -> list[Any]:
    """Numbers from every generator a rank has: host, device, Megatron's, and the rollout's as verl switches to it."""
    numbers = [random.random(), np.random.rand(), torch.rand(2).tolist(), torch.rand(2, device="npu").tolist()]
    for name in tensor_parallel.get_cuda_rng_tracker().get_states():
        with tensor_parallel.get_cuda_rng_tracker().fork(name):
            numbers.append(torch.rand(2, device="npu").tolist())
    return [*numbers, samples(rank_worker)]


def samples(rank_worker: Any) -> Any:
    before = torch.npu.get_rng_state()
    torch.npu.set_rng_state(rank_worker.gen_random_states)
    drawn = torch.rand(2, device="npu").tolist()
    rank_worker.gen_random_states = torch.npu.get_rng_state()
    torch.npu.set_rng_state(before)
    return drawn


def test_every_generator_goes_on_as_it_would_have(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    saved = seeded(worker())
    first = draws(saved)
    save_rank(saved, tmp_path / "global_step_2")
    expected = [draws(saved), draws(saved)]
    resumed = seeded(worker(), seed=6)
    load_rank(resumed, tmp_path / "global_step_2")
    drawn = [draws(resumed), draws(resumed)]
    assert drawn == expected
    assert all(before != after for before, after in zip(first, expected[0], strict=True)), "each generator has moved"
    assert not caplog.records


@pytest.mark.proves(
    "verl_patches.workers.megatron_workers:save_checkpoint", "verl_patches.workers.megatron_workers:load_checkpoint"
)
def test_verls_worker_saves_and_loads_them_with_its_checkpoint(tmp_path: Path) -> None:
    def with_manager(rank_worker: Any) -> Any:
        nothing = SimpleNamespace(save_checkpoint=lambda **_: None, load_checkpoint=lambda **_: set_random_seed(9))
        rank_worker._is_offload_param = rank_worker._is_offload_optimizer = False
        rank_worker.checkpoint_mananager = nothing
        return rank_worker

    saved, actor = with_manager(seeded(worker())), str(tmp_path / "global_step_2" / "actor")
    ActorRolloutRefWorker.save_checkpoint(saved, actor, None, 2, max_ckpt_to_keep=2)
    expected = draws(saved)
    resumed = with_manager(seeded(worker(), seed=6))
    ActorRolloutRefWorker.load_checkpoint(resumed, actor, del_local_after_load=False)
    assert draws(resumed) == expected
    ActorRolloutRefWorker.load_checkpoint(resumed, None)  # a run that begins


def test_a_checkpoint_without_states_is_gone_on_from_with_seed_and_step(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    check_seeded_anew(tmp_path, caplog, "it holds no random states")


def test_states_of_another_layout_are_not_taken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for step in (2, 4):
        save_rank(seeded(worker(world_size=4, rank=0)), tmp_path / f"global_step_{step}")
    check_seeded_anew(tmp_path, caplog, "it was saved by another layout (ranks 4, here 1)")


def check_seeded_anew(checkpoints: Path, caplog: pytest.LogCaptureFixture, why: str) -> None:
    draws_by_case = {}
    for step, seed, rank in ((2, 1, 0), (2, 1, 1), (4, 1, 0), (2, 2, 0)):
        for repeated in (False, True):
            rank_worker = seeded(worker(rank=rank, seed=seed), seed=7 + repeated)
            load_rank(rank_worker, checkpoints / f"global_step_{step}")
            drawn = draws(rank_worker)
            assert draws_by_case.setdefault((step, seed, rank), drawn) == drawn, "the same each time"
    other_engine, other_step, other_seed = draws_by_case[2, 1, 1], draws_by_case[4, 1, 0], draws_by_case[2, 2, 0]
    # Ranks that work on one sequence must agree in training; Megatron's trackers tell them apart where they must not.
    assert other_engine[:-1] == draws_by_case[2, 1, 0][:-1] and other_engine[-1] != draws_by_case[2, 1, 0][-1]
    for other_draws in (other_step, other_seed):
        assert all(left != right for left, right in zip(draws_by_case[2, 1, 0], other_draws, strict=True))
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 6 and all(why in text and "\n" not in text for text in warnings), "rank 0 says it"


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(
    "change",
    [
        {"device": "00"},
        {"megatron": None},
        {"megatron": {"a": "00"}},
        {"rollout": 3},
        {"rollout": "00"},
        {"python": []},
        "missing",
    ],
)
def test_states_that_cannot_be_used_end_the_load_in_one_line(tmp_path: Path, rank: int, change: Any) -> None:
    for number in (0, 1):
        save_rank(seeded(worker(rank=number, world_size=2)), tmp_path / "global_step_2")
    path = tmp_path / "global_step_2" / DIRECTORY / f"rank_{rank}.json"
    if change == "missing":
        path.unlink()
    else:
        path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(RandomStatesError, match=rf"rank_{rank}\.json, .*go on from an earlier checkpoint") as caught:
        load_rank(worker(rank=rank, world_size=2), tmp_path / "global_step_2")
    assert "\n" not in str(caught.value)


def test_engines_and_seeds_sample_differently_and_the_ranks_of_an_engine_alike() -> None:
    def first(rank: int, seed: int, tensor: int = 1) -> Any:
        rank_worker = worker(rank=rank, seed=seed, rollout_tensor=tensor)
        seed_rollout(rank_worker, step=0)
        return samples(rank_worker)

    assert first(0, seed=1) == first(0, seed=1)
    assert len({str(first(rank, seed)) for rank in range(4) for seed in (1, 2)}) == 8
    assert first(0, 1, tensor=2) == first(1, 1, tensor=2) != first(2, 1, tensor=2) == first(3, 1, tensor=2)


@pytest.mark.proves("verl_patches.workers.megatron_workers:_build_rollout")
@pytest.mark.parametrize("seed", [1, 2])
def test_an_engine_that_seeds_the_process_changes_neither_training_nor_rollout(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """vLLM seeds Python, NumPy and torch with its own seed, and verl notes the device's state after that."""

    class Engine:
        def __init__(self, **_: Any) -> None:
            random.seed(0)
            np.random.seed(0)
            torch.manual_seed(0)

        async def release(self) -> None: ...

    monkeypatch.setattr(megatron_workers, "get_rollout_class", lambda *_: Engine)
    monkeypatch.setattr(
        megatron_workers, "omega_conf_to_dataclass", lambda *_, **__: SimpleNamespace(name="vllm", mode="sync")
    )
    rank_worker = worker(
        seed=seed, actor=SimpleNamespace(actor_module=[]), _register_dispatch_collect_info=lambda *_, **__: None
    )
    rank_worker.config.rollout.update(name="vllm", free_cache_engine=True)
    rank_worker.config.model = {}
    rank_worker.trainer_mode = lambda: ActorRolloutRefWorker.trainer_mode(rank_worker)
    set_random_seed(5)
    expected = draws(seeded(worker(seed=seed)))
    set_random_seed(5)
    ActorRolloutRefWorker._build_rollout(rank_worker)
    assert draws(rank_worker) == expected
