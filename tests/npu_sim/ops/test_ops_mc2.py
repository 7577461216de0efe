# SPDX-License-Identifier: Apache-2.0
"""Dispatch and combine over real process groups, against the experts applied to every token on one process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.ranks import free_port

PROGRAM = Path(__file__).with_name("mc2_process.py")


def run(world):
    port = free_port()
    ranks = [
        subprocess.Popen(
            [sys.executable, str(PROGRAM)],
            env=os.environ
            | {
                "RANK": str(r),
                "WORLD_SIZE": str(world),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
                "GLOO_SOCKET_IFNAME": "lo",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for r in range(world)
    ]
    try:
        return [(rank, *rank.communicate(timeout=120)) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()


@pytest.mark.parametrize("world", [1, 2])
def test_dispatch_and_combine(world):
    for rank, output, _ in run(world):
        assert rank.returncode == 0 and "mc2 agrees" in output, output[-3000:]


def test_needs_a_process_group():
    import torch_npu

    assert not torch.distributed.is_initialized()
    with pytest.raises(RuntimeError, match=r"npu_moe_distribute_dispatch_v2: torch.distributed is not initialised"):
        torch_npu.npu_moe_distribute_dispatch_v2(
            x=torch.zeros(2, 4).npu(),
            expert_ids=torch.zeros(2, 1, dtype=torch.int32).npu(),
            group_ep="any",
            ep_world_size=1,
            ep_rank_id=0,
            moe_expert_num=2,
        )
