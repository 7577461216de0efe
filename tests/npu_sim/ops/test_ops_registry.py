# SPDX-License-Identifier: Apache-2.0
"""What every simulated operator has in common: devices, counting, accounting, gradients, in-place writes."""

import pytest
import torch
import torch_npu
from torch_npu.ops import ATB, PUBLIC, registry


def test_calls_are_counted_by_name():
    x = torch.randn(2, 4, device="npu")
    before = registry.counts().get("npu_swiglu", 0)
    torch_npu.npu_swiglu(x)
    torch_npu.npu_swiglu(x)
    assert registry.counts()["npu_swiglu"] == before + 2


def test_public_names_are_installed_in_torch_npu():
    assert all(getattr(torch_npu, name) is function for name, function in PUBLIC.items())
    assert all(getattr(torch_npu.atb, name) is function for name, function in ATB.items())


def test_cpu_tensor_is_refused_with_operator_and_argument():
    with pytest.raises(RuntimeError, match=r"npu_rms_norm: gamma is on cpu"):
        torch_npu.npu_rms_norm(torch.randn(2, 4, device="npu"), torch.ones(4))
    with pytest.raises(RuntimeError, match=r"npu_grouped_matmul: weight is on cpu"):
        torch_npu.npu_grouped_matmul([torch.randn(2, 4, device="npu")], [torch.ones(4, 4)])


def test_two_devices_are_refused():
    with pytest.raises(RuntimeError, match=r"npu_rms_norm: expected all tensors on one device.*npu:1"):
        torch_npu.npu_rms_norm(torch.randn(2, 4, device="npu:0"), torch.ones(4, device="npu:1"))


def test_host_argument_must_be_on_the_cpu():
    with pytest.raises(RuntimeError, match=r"_npu_paged_attention: context_lens is read on the host"):
        torch_npu._npu_paged_attention(
            query=torch.randn(1, 2, 8, device="npu"),
            key_cache=torch.randn(2, 16, 2, 8, device="npu"),
            value_cache=torch.randn(2, 16, 2, 8, device="npu"),
            num_kv_heads=2,
            num_heads=2,
            scale_value=1.0,
            block_table=torch.zeros(1, 2, dtype=torch.int32, device="npu"),
            context_lens=torch.ones(1, dtype=torch.int32, device="npu"),
            out=torch.empty(1, 2, 8, device="npu"),
        )


def test_result_lives_on_the_arguments_device():
    x = torch.randn(2, 4, device="npu:1")
    assert torch_npu.npu_swiglu(x).device == torch.device("npu:1")


def test_results_are_accounted_as_device_memory():
    x = torch.randn(1024, 512, device="npu")
    before = torch.npu.memory_allocated()
    y = torch_npu.npu_swiglu(x)
    assert torch.npu.memory_allocated() - before == y.numel() * 4
    del y
    assert torch.npu.memory_allocated() == before


def test_argument_is_not_aliased_by_results():
    x1, x2, gamma = torch.randn(3, 8, device="npu"), torch.zeros(3, 8, device="npu"), torch.ones(8, device="npu")
    _, _, total = torch_npu.npu_add_rms_norm(x1, x2, gamma)
    kept = total.cpu()
    x1.zero_()
    assert torch.equal(total.cpu(), kept)


def test_gradient_needs_a_trained_operator():
    x = torch.randn(2, 4, device="npu", requires_grad=True)
    with pytest.raises(NotImplementedError, match=r"npu_fast_gelu \(simulated NPU\) has no backward"):
        torch_npu.npu_fast_gelu(x)
    with torch.no_grad():
        assert not torch_npu.npu_fast_gelu(x).requires_grad


def test_backward_saves_only_the_inputs():
    x = torch.randn(256, 512, device="npu", requires_grad=True)
    before = torch.npu.memory_allocated()
    y = torch_npu.npu_swiglu(x)
    assert torch.npu.memory_allocated() - before == y.numel() * 4  # nothing but the result was kept


def test_gradient_flows_to_the_wanted_inputs_only():
    x = torch.randn(3, 8, device="npu")
    gamma = torch.ones(8, device="npu", requires_grad=True)
    torch_npu.npu_rms_norm(x, gamma)[0].sum().backward()
    assert gamma.grad.device.type == "npu" and x.grad is None


def test_too_many_arguments():
    with pytest.raises(TypeError, match="npu_swiglu"):
        torch_npu.npu_swiglu(torch.randn(2, 2, device="npu"), -1, 3)
