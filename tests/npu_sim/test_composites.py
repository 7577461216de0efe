# SPDX-License-Identifier: Apache-2.0
"""Operators that torch composes of others, and that the CPU and every device have a kernel of their own for."""

import pytest
import torch
import torch_npu  # noqa: F401
from torch.nn import functional

# Composed of others they give the same, as they only move or compare.
SAME = {
    "aten::_stack", "aten::_stack.out", "aten::native_channel_shuffle", "aten::any.dims_out", "aten::all.dims_out",
    "aten::linalg__powsum",
}  # fmt: skip


def has(operator, key):
    return torch._C._dispatch_has_kernel_for_dispatch_key(operator, key)


def test_no_composite_stands_in_for_a_kernel_of_the_cpu():
    """What torch's next version composes of others is found here."""
    composed = set()
    for operator in torch._C._dispatch_get_all_op_names():
        if not operator.startswith("aten::") or has(operator, "PrivateUse1"):
            continue
        keys = [line.split(":")[0].split("[")[0] for line in torch._C._dispatch_dump(operator).splitlines()]
        if "CPU" in keys and any(key.startswith("Composite") for key in keys):
            composed.add(operator)
    assert composed == SAME


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_layer_norm_of_half_types_under_float32_weights_keeps_the_type(dtype):
    """As op-plugin makes its output, of the input's type."""
    values, norm = torch.randn(6, 10, dtype=dtype), torch.nn.LayerNorm(10)
    gradients = []
    for device in ("cpu", "npu"):
        inputs = values.to(device).detach().requires_grad_()
        norm = norm.to(device)
        norm.zero_grad()
        output = norm(inputs)
        output.backward(torch.ones_like(output))
        assert output.dtype == inputs.grad.dtype == dtype and norm.weight.grad.dtype == torch.float32
        gradients.append([output.detach().cpu(), inputs.grad.cpu(), norm.weight.grad.cpu().clone()])
    assert all(map(torch.equal, *gradients))


@pytest.mark.parametrize(
    "compute",
    [
        lambda values: functional.group_norm(values, 4),
        functional.mish,
        lambda values: torch.addr(values[0, :, :, 0], values[1, :, 0, 0], values[1, 0, :, 0]),
    ],
    ids=["group_norm", "mish", "addr"],
)
def test_values_and_gradients_are_those_of_the_cpu(compute):
    values, outcomes = torch.randn(2, 8, 6, 6, dtype=torch.float16), []
    for device in ("cpu", "npu"):
        inputs = values.to(device).detach().requires_grad_()
        output = compute(inputs)
        output.backward(torch.ones_like(output))
        outcomes.append([output.detach().cpu(), inputs.grad.cpu()])
    for one, other in zip(*outcomes, strict=True):
        assert one.dtype == other.dtype == torch.float16 and torch.equal(one, other)


@pytest.mark.skipif(not torch._nnpack_available(), reason="this processor has no NNPACK")
def test_nnpack_convolves_for_the_device():
    image, weight, bias = torch.rand(1, 3, 16, 16), torch.rand(4, 3, 3, 3), torch.rand(4)
    expected = torch._nnpack_spatial_convolution(image, weight, bias, (1, 1))
    assert torch.equal(torch._nnpack_spatial_convolution(image.npu(), weight.npu(), bias.npu(), (1, 1)).cpu(), expected)


def test_packed_sequences_are_refused():
    """An NPU keeps the padding in them: another shape than the CPU's."""
    padded, lengths = torch.ones(3, 2, 1, device="npu"), torch.tensor([3, 1])
    with pytest.raises(NotImplementedError, match="_pack_padded_sequence is not supported on the simulated NPU"):
        torch.nn.utils.rnn.pack_padded_sequence(padded, lengths)
    packed = torch.nn.utils.rnn.PackedSequence(padded.flatten(0, 1)[:4], torch.tensor([2, 1, 1]))
    with pytest.raises(NotImplementedError, match="_pad_packed_sequence is not supported on the simulated NPU"):
        torch.nn.utils.rnn.pad_packed_sequence(packed)
