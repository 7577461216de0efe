# SPDX-License-Identifier: Apache-2.0
"""Each rank's place in vLLM's data-parallel layout, and an address its column really meets at."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.ranks import free_port
from verl_patches.workers.rollout.vllm_rollout import dp_environment
from verl_patches.workers.rollout.vllm_rollout.dp_environment import data_parallel_place


@given(instances=st.integers(1, 4), dp=st.integers(1, 16), tp=st.integers(1, 8))
def test_places_equal_vllms_group_layout(instances: int, dp: int, tp: int) -> None:
    world = instances * dp * tp
    layout = torch.arange(world).reshape(instances, dp, 1, tp)
    columns = layout.transpose(1, 3).reshape(-1, dp).tolist()  # as vLLM makes its data-parallel groups
    for column in columns:
        for dp_rank, rank in enumerate(column):
            place = data_parallel_place(rank, world, dp, tp)
            assert (place.rank, place.leader) == (dp_rank, column[0])


def test_the_cluster_layout() -> None:
    """256 dies, tensor parallel 2, VLLM_DP_SIZE 128."""
    assert data_parallel_place(255, 256, 128, 2) == dp_environment.DataParallelPlace(rank=127, leader=1)
    assert data_parallel_place(2, 256, 128, 2) == dp_environment.DataParallelPlace(rank=1, leader=0)


@pytest.mark.parametrize(("world", "dp", "tp"), [(4, 3, 1), (4, 4, 2), (2, 0, 1)])
def test_a_world_that_does_not_divide_is_refused(world: int, dp: int, tp: int) -> None:
    with pytest.raises(ValueError, match=f"{world} ranks cannot be laid out"):
        data_parallel_place(0, world, dp, tp)


def test_a_reserved_port_is_nobody_elses_but_can_be_listened_on() -> None:
    with dp_environment._reserve_port("127.0.0.1") as reserved:
        address = reserved.getsockname()
        with socket.socket() as stranger, pytest.raises(OSError):
            stranger.bind(address)
        store = torch.distributed.TCPStore("127.0.0.1", address[1], 1, is_master=True)
        store.set("key", "value")
        assert store.get("key") == b"value"
        del store


COLUMN = """
import os, sys, torch, torch.distributed as dist
from verl_patches.workers.rollout.vllm_rollout.dp_environment import data_parallel_environment
dist.init_process_group("gloo")
with data_parallel_environment(tp_size=2) as place:
    store = dist.TCPStore(os.environ["VLLM_DP_MASTER_IP"], int(os.environ["VLLM_DP_MASTER_PORT"]), 2,
                          is_master=os.environ["VLLM_DP_RANK"] == "0")
    store.set(os.environ["VLLM_DP_RANK"], os.environ["RANK"])
    met = sorted(int(store.get(name)) for name in ("0", "1"))
    assert met == sorted([place.leader, place.leader + 2]), met
    dist.barrier()
assert os.environ["VLLM_DP_RANK_LOCAL"] == os.environ["VLLM_DP_RANK"] == str(place.rank)
print("met", met, flush=True)
dist.destroy_process_group()
"""


def test_the_columns_of_four_processes_meet_at_their_own_addresses(tmp_path: Path) -> None:
    port = str(free_port())
    common = os.environ | {"WORLD_SIZE": "4", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "VLLM_DP_SIZE": "2"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", COLUMN],
            env=common | {"RANK": str(rank), "TORCH_DEVICE_BACKEND_AUTOLOAD": "0"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(4)
    ]
    try:
        outputs = [process.communicate(timeout=180)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [output.strip().splitlines()[-1] for output in outputs] == ["met [0, 2]", "met [1, 3]"] * 2
