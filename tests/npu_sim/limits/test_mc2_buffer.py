# SPDX-License-Identifier: Apache-2.0
"""How many tokens of a die the buffers of HCCL have room for, where tokens go to experts on other dies."""

from collections.abc import Callable

import pytest
import torch
from torch_npu.limits import Level, Refused

from tests.npu_sim.limits.probes import INSIDE
from tests.npu_sim.limits.probes.tensors import half, wide
from tests.npu_sim.limits.test_every_limit import call, operator

OPERATORS = ("npu_moe_distribute_dispatch_v2", "npu_moe_distribute_combine_v2")


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
    arguments = INSIDE[name]() | {"ep_world_size": dies, "x_active_mask": None}
    arguments["expert_ids"] = torch.arange(8, dtype=torch.int32, device="npu").repeat(tokens, 1)
    if "x" in arguments:
        arguments["x"] = half(tokens, 7168)
    else:
        arguments["expert_scales"] = wide(tokens, 8)
    at_level(Level.STRICT)
    for global_bs in (0, tokens * dies):
        arguments["global_bs"] = global_bs
        if taken:
            call(name, arguments)
            continue
        with pytest.raises(Refused, match=rf"{name}: global_bs is {global_bs} \({tokens} tokens a die\), which wants"):
            operator(name)(**arguments)
