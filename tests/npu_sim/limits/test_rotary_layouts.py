# SPDX-License-Identifier: Apache-2.0
"""Which shapes of cos an NPU takes for which x, where nothing says which dimension is what."""

from collections.abc import Callable

import pytest
import torch
import torch_npu
from torch_npu.limits import Level, Refused


def turn(x: tuple[int, ...], cos: tuple[int, ...], mode: str) -> None:
    angle = torch.ones(*cos, 2, device="npu")
    torch_npu.npu_rotary_mul(torch.ones(*x, 2, device="npu"), angle, angle, rotary_mode=mode)


@pytest.mark.parametrize(
    ("x", "cos", "mode"),
    [
        # the shapes of op-plugin's own tests
        ((2, 8192, 5), (1, 8192, 1), "half"),
        ((8192, 2, 5), (8192, 1, 1), "half"),
        ((2048, 4, 32), (2048, 4, 1), "half"),
        ((2, 24, 5), (1, 1, 5), "interleave"),
        ((64, 8, 8), (1, 1, 8), "interleave"),
        # every position of every head, and one position
        ((2, 3, 4), (2, 3, 4), "half"),
        ((5, 1, 3), (5, 1, 1), "half"),
        ((5, 1, 3), (5, 1, 1), "interleave"),
        ((1, 1, 3), (1, 1, 1), "interleave"),
    ],
)
def test_taken(x, cos, mode, at_level: Callable[[Level], None]) -> None:
    at_level(Level.STRICT)
    turn(x, cos, mode)


@pytest.mark.parametrize(
    ("x", "cos", "mode"),
    [
        ((2, 3, 4), (1, 3, 4), "half"),  # for each head, but not for each batch row
        ((2, 3, 4), (1, 1, 1), "half"),  # for no position
        ((2, 3, 4), (2, 3, 1), "interleave"),  # for each batch row
        ((2, 3, 4), (2, 3, 4), "interleave"),
    ],
)
def test_refused_for_the_shape_of_cos(x, cos, mode, at_level: Callable[[Level], None]) -> None:
    at_level(Level.STRICT)
    with pytest.raises(Refused, match=r"npu_rotary_mul: r1 is of shape .* for input of shape"):
        turn(x, cos, mode)


@pytest.mark.parametrize(
    ("x", "cos", "mode"),
    [
        ((1000, 2, 3), (1, 2, 1), "half"),
        ((3, 2, 1000), (1, 2, 1), "half"),
        ((50, 2, 20), (1, 2, 1), "interleave"),
    ],
)
def test_refused_for_batch_and_heads(x, cos, mode, at_level: Callable[[Level], None]) -> None:
    at_level(Level.STRICT)
    with pytest.raises(Refused, match="B, N < 1000"):
        turn(x, cos, mode)
