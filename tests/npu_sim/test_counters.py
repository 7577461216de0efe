# SPDX-License-Identifier: Apache-2.0
"""What ran is counted, by name."""

import pytest
import torch
import torch_npu


def test_operators_are_counted_where_they_run():
    x = torch.ones(2, 4, device="npu")
    torch_npu.sim.reset_counts()
    _ = x @ x.t()
    x.add_(1)
    _ = x + torch.ones(2, 4, device="npu")
    torch_npu.npu_swiglu(x)
    torch.ones(3).add_(1)  # not ours
    counts = torch_npu.sim.op_counts()
    assert counts["aten::mm"] == 1
    assert counts["aten::add_.Tensor"] == 1 and counts["aten::add.Tensor"] == 1
    assert counts["npu_swiglu"] == 1
    assert counts["aten::as_strided"] >= 1
    torch_npu.sim.reset_counts()
    assert torch_npu.sim.op_counts() == {}
    assert torch_npu.sim.collective_counts() == {}


def test_a_refused_call_is_counted_too():
    torch_npu.sim.reset_counts()
    with pytest.raises(NotImplementedError):
        torch.fft.fft(torch.ones(4, device="npu"))
    assert torch_npu.sim.op_counts()["aten::_fft_r2c"] == 1
