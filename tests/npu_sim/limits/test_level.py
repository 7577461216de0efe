# SPDX-License-Identifier: Apache-2.0
"""What the strict level of a process switches on, and how it is told."""

from collections.abc import Callable

import pytest
import torch
import torch_npu
from torch_npu.limits import Level, Refused


def rope(size: int, dtype: torch.dtype) -> None:
    x = torch.ones(2, 1, 1, size, dtype=dtype, device="npu")
    torch_npu.npu_interleave_rope(x, x, x)


def test_nothing_is_refused_when_off(at_level: Callable[[Level], None]) -> None:
    at_level(Level.OFF)
    rope(32, torch.float32)


def test_float32_passes_for_comparisons(at_level: Callable[[Level], None]) -> None:
    at_level(Level.FLOAT32)
    rope(64, torch.float32)
    with pytest.raises(Refused, match="a last dimension of 64"):
        rope(32, torch.float32)


@pytest.mark.parametrize(
    ("value", "said"), [(None, "computed too"), ("0", "computed too"), ("1", "is refused"), ("float32", "half types")]
)
def test_the_environment_decides(run_python, value, said):
    done = run_python("import torch", NPU_SIM_STRICT=value)
    assert done.returncode == 0 and said in done.stderr


def test_another_value_is_an_error(run_python):
    done = run_python("import torch", NPU_SIM_STRICT="yes")
    assert done.returncode != 0 and "NPU_SIM_STRICT is 'yes', expected one of 0, 1, float32" in done.stderr
