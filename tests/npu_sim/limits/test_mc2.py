# SPDX-License-Identifier: Apache-2.0
"""What a die takes where tokens go to experts on other dies: tokens that HCCL's buffers have room for, by its kind."""

import re
from collections.abc import Callable

import pytest
import torch
from torch_npu.limits import Level, Refused

from tests.npu_sim.limits.probes import INSIDE
from tests.npu_sim.limits.probes.tensors import Arguments, half, wide
from tests.npu_sim.limits.test_every_limit import call, operator

OPERATORS = ("npu_moe_distribute_dispatch_v2", "npu_moe_distribute_combine_v2")


def sent(name: str, tokens: int) -> Arguments:
    """A call for so many tokens."""
    arguments = INSIDE[name]() | {"x_active_mask": None}
    arguments["expert_ids"] = torch.arange(8, dtype=torch.int32, device="npu").repeat(tokens, 1)
    rows = {"x": half(tokens, 7168)} if "x" in arguments else {"expert_scales": wide(tokens, 8)}
    return {**arguments, **rows}


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize(
    ("megabytes", "dies", "tokens", "taken"),
    [
        # Of DeepSeek-V3: 256 experts, 8 for a token, rows of 14848 bytes there and of 14336 back, twice.
        (300, 256, 32, True),
        (300, 64, 32, True),
        (300, 64, 64, False),
        (479, 64, 64, False),
        (480, 64, 64, True),
        (None, 64, 26, True),  # 200
        (None, 64, 27, False),
    ],
)
def test_the_buffer_has_room_for_so_many(
    name: str, megabytes: int | None, dies: int, tokens: int, taken: bool,
    at_level: Callable[[Level], None], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.delenv("HCCL_BUFFSIZE", raising=False)
    if megabytes is not None:
        monkeypatch.setenv("HCCL_BUFFSIZE", str(megabytes))
    arguments = sent(name, tokens) | {"ep_world_size": dies}
    at_level(Level.STRICT)
    for global_bs in (0, tokens * dies):
        arguments["global_bs"] = global_bs
        if taken:
            call(name, arguments)
            continue
        with pytest.raises(Refused, match=rf"{name}: global_bs is {global_bs} \({tokens} tokens a die\), which wants"):
            operator(name)(**arguments)


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize(
    ("dies", "tokens", "megabytes", "refused"),
    [
        (64, 32, 300, ""),  # 2 * (4 * 32 * 64 * 14336 bytes + 2 MiB)
        (64, 32, 227, "wants HCCL_BUFFSIZE 228"),
        (256, 8, 300, "ep_world_size is 256 on an A2"),
        (8, 8, 300, "ep_world_size is 8 on an A2"),
        (16, 257, 10**4, "expert_ids is of shape [257, 8]"),
        (16, 256, 10**4, ""),
    ],
)
def test_an_a2_takes_less(
    name: str, dies: int, tokens: int, megabytes: int, refused: str,
    at_level: Callable[[Level], None], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("HCCL_BUFFSIZE", str(megabytes))
    monkeypatch.setenv("NPU_SIM_DIE", "a2")
    arguments = sent(name, tokens) | {"ep_world_size": dies, "global_bs": tokens * dies}
    at_level(Level.STRICT)
    if not refused:
        call(name, arguments)
        return
    with pytest.raises(Refused, match=re.escape(refused)):
        operator(name)(**arguments)
    monkeypatch.setenv("NPU_SIM_DIE", "a4")
    with pytest.raises(ValueError, match="NPU_SIM_DIE is 'a4', expected a2 or a3"):
        operator(name)(**arguments)
