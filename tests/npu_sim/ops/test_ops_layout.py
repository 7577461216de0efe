# SPDX-License-Identifier: Apache-2.0
"""Formats are accepted and change nothing; hints do nothing."""

import pytest
import torch
import torch_npu


@pytest.mark.parametrize("code", [0, 1, 2, 27, 29, 30])
def test_format_cast_is_the_identity(code):
    weight = torch.nn.Parameter(torch.randn(2, 3).npu())
    assert torch_npu.npu_format_cast(weight, code) is weight
    assert torch_npu.npu_format_cast_(weight, code) is weight
    assert torch_npu.get_npu_format(weight) == 2


def test_other_formats_and_cpu_tensors_are_refused():
    with pytest.raises(NotImplementedError, match=r"npu_format_cast.*acl_format=4"):
        torch_npu.npu_format_cast(torch.randn(2).npu(), 4)
    with pytest.raises(NotImplementedError, match=r"npu_format_cast_.*acl_format=4"):
        torch_npu.npu_format_cast_(torch.randn(2).npu(), 4)
    for call in (
        lambda x: torch_npu.npu_format_cast(x, 2),
        lambda x: torch_npu.npu_format_cast_(x, 2),
        torch_npu.get_npu_format,
    ):
        with pytest.raises(RuntimeError, match="is on cpu"):
            call(torch.randn(2))


def test_prefetch():
    weight = torch.randn(2).npu()
    assert torch_npu.npu_prefetch(weight, weight, 1024) is None
    with pytest.raises(ValueError, match="npu_prefetch: max_size is 0"):
        torch_npu.npu_prefetch(weight, None, 0)
    with pytest.raises(RuntimeError, match="npu_prefetch: input is on cpu"):
        torch_npu.npu_prefetch(weight.cpu(), None, 1)
