# SPDX-License-Identifier: Apache-2.0
"""Formats are told as torch_npu tells them and change no value; hints do nothing."""

import io
from collections.abc import Iterator

import pytest
import torch
import torch_npu
from torch_npu import Format


@pytest.fixture
def private_formats() -> Iterator[None]:
    """torch.npu.config.allow_internal_format, which is off on an A3."""
    torch.npu.config.allow_internal_format = True
    yield
    torch.npu.config.allow_internal_format = False


def test_a_tensor_has_the_format_of_its_dimensions():
    formats = [torch_npu.get_npu_format(torch.zeros([2] * dimensions).npu()) for dimensions in (1, 2, 3, 4, 5, 6)]
    assert formats == [2, 2, 2, 0, 30, 2]


def test_plain_formats_are_renamed_in_place():
    weight = torch.nn.Parameter(torch.randn(2, 3).npu())
    assert torch_npu.npu_format_cast(weight, 2) is weight
    assert torch_npu.npu_format_cast(weight, Format.NCHW) is weight
    assert torch_npu.get_npu_format(weight) is Format.NCHW


def test_a_cast_to_nz_is_a_copy_with_gradients(private_formats):
    weight = torch.nn.Parameter(torch.randn(2, 3).npu())
    nz = torch_npu.npu_format_cast(weight, 29)
    assert torch_npu.get_npu_format(nz) is Format.FRACTAL_NZ and torch_npu.get_npu_format(weight) is Format.ND
    assert nz.data_ptr() != weight.data_ptr() and torch.equal(nz, weight)
    assert torch_npu.npu_format_cast(nz, 29) is nz
    (nz * 2).sum().backward()
    assert weight.grad is not None and weight.grad.tolist() == [[2.0] * 3] * 2
    back = torch_npu.npu_format_cast(nz, 2)
    assert torch_npu.get_npu_format(back) == 2 and torch_npu.get_npu_format(nz) == 29


def test_views_share_the_format_and_results_do_not(private_formats):
    tensor = torch_npu.npu_format_cast(torch.arange(12.0).view(3, 4).npu(), 29)
    assert torch_npu.get_npu_format(tensor.t()) == 29 and torch_npu.get_npu_format(tensor[1]) == 29
    assert torch_npu.get_npu_format(tensor + 1) == 2 and torch_npu.get_npu_format(tensor.clone()) == 2
    assert tensor.t().contiguous().cpu().tolist() == torch.arange(12.0).view(3, 4).t().tolist()


def test_a_format_ends_with_its_storage(private_formats):
    """Addresses of freed storages are used again; a new tensor there is not in the old one's format."""
    for _ in range(50):
        torch_npu.npu_format_cast(torch.zeros(16, 16).npu(), 29)
        assert torch_npu.get_npu_format(torch.zeros(16, 16).npu()) == 2


def test_a_parameter_is_cast_through_its_data(private_formats):
    """As vLLM-Ascend casts quantised weights."""
    layer = torch.nn.Linear(16, 32, bias=False).npu()
    before = layer.weight.detach().cpu()
    layer.weight.data = torch_npu.npu_format_cast(layer.weight.data, 29)
    assert torch_npu.get_npu_format(layer.weight.data) == 29 and torch.equal(layer.weight.detach().cpu(), before)
    torch.testing.assert_close(layer(torch.ones(1, 16).npu()).cpu(), before.sum(1)[None])


def test_in_place_and_to_the_format_of_another(private_formats):
    one, other = torch.randn(4, 4).npu(), torch.randn(4, 4).npu()
    assert torch_npu.npu_format_cast_(one, 29) is one and torch_npu.get_npu_format(one) == 29
    assert torch_npu.npu_format_cast_(other, one) is other and torch_npu.get_npu_format(other) == 29


@pytest.mark.parametrize(
    ("private", "shape"), [(3, (2, 2, 4, 4)), (4, (2, 2, 4, 4)), (29, (4, 4)), (33, (1, 2, 2, 2, 4))]
)
def test_a_copy_from_a_private_format_has_one_of_its_dimensions(private, shape, private_formats):
    """As torch_npu 2.5.1-7.1.0 infers it (csrc/framework/InferFormat.cpp): there is no ND of four dimensions."""
    tensor = torch.randn(shape).npu()
    for cast in (torch_npu.npu_format_cast, torch_npu.npu_format_cast_):
        for plain, given in ((2, 0 if len(shape) == 4 else 2), (0, 0 if len(shape) == 4 else 2)):
            asked = cast(tensor.clone(), private)
            assert torch_npu.get_npu_format(asked) == private
            back = cast(asked, plain)
            assert torch_npu.get_npu_format(back) == given and torch.equal(back, tensor)


def test_a_cast_to_the_format_of_another_tensor(private_formats):
    one, other = torch.randn(2, 2, 4, 4).npu(), torch_npu.npu_format_cast(torch.randn(2, 2, 4, 4).npu(), 3)
    assert torch_npu.get_npu_format(torch_npu.npu_format_cast(one, other)) == 3
    assert torch_npu.get_npu_format(torch_npu.npu_format_cast(other, one)) == torch_npu.get_npu_format(one) == 0


def test_saved_tensors_keep_their_values(private_formats):
    tensor, stream = torch_npu.npu_format_cast(torch.randn(8, 5).npu(), 29), io.BytesIO()
    torch.save(tensor, stream)
    stream.seek(0)
    loaded = torch.load(stream, weights_only=True)
    assert torch.equal(loaded.cpu(), tensor.cpu()) and torch_npu.get_npu_format(loaded) == 2


@pytest.mark.parametrize(
    ("allowed", "tensor", "reason"),
    [
        (False, torch.zeros(2, 2), "allow_internal_format is False"),
        (True, torch.zeros(2, 2, dtype=torch.float64), "it is float64"),
        (True, torch.zeros(4), "fewer than 2 dimensions"),
    ],
)
def test_some_stay_in_their_base_format(allowed, tensor, reason, private_formats):
    torch.npu.config.allow_internal_format = allowed
    with pytest.warns(UserWarning, match=reason):
        cast = torch_npu.npu_format_cast(tensor.npu(), 29)
    assert torch_npu.get_npu_format(cast) == 2


def test_unknown_formats_and_cpu_tensors_are_refused():
    with pytest.raises(NotImplementedError, match=r"npu_format_cast.*acl_format=99"):
        torch_npu.npu_format_cast(torch.randn(2).npu(), 99)
    with pytest.raises(ValueError, match=r"npu_format_cast: self is of 4 dimensions, expected 5"):
        torch_npu.npu_format_cast(torch.randn(2, 2, 2, 2).npu(), 32)
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
    for sizes, says in (((0,), "zero, but got 0"), ((1, -1), "zero, but got -1"), ((1, weight.nbytes), "out of range")):
        with pytest.raises(RuntimeError, match=says):
            torch_npu.npu_prefetch(weight, None, *sizes)
    with pytest.raises(RuntimeError, match="npu_prefetch: input is on cpu"):
        torch_npu.npu_prefetch(weight.cpu(), None, 1)


@pytest.mark.parametrize(
    ("acl_format", "shape", "dtype", "elements"),
    [
        (2, (8, 8), torch.float16, 64),
        (29, (8, 8), torch.float32, 16 * 16),
        (29, (2, 17, 33), torch.float16, 2 * 32 * 48),
        (29, (8, 8), torch.int8, 16 * 32),
        (3, (2, 17, 3, 5), torch.float16, 2 * 32 * 3 * 5),
        (3, (7, 3), torch.float16, 16 * 3),
        (4, (2, 17, 3, 5), torch.float16, 16 * 32 * 3 * 5),
        (32, (2, 3, 4, 5, 6), torch.float16, 2 * 16 * 4 * 5 * 6),
        (33, (2, 3, 4, 5, 6), torch.float16, 16 * 16 * 4 * 5 * 6),
    ],
)
def test_prefetch_goes_as_far_as_the_blocks_of_a_private_format(acl_format, shape, dtype, elements, private_formats):
    tensor = torch_npu.npu_format_cast(torch.zeros(shape, dtype=dtype).npu(), acl_format)
    end = elements * tensor.element_size()
    torch_npu.npu_prefetch(tensor, None, 1, end - 1)
    with pytest.raises(RuntimeError, match=f"tensor size: {end}, offset: {end}"):
        torch_npu.npu_prefetch(tensor, None, 1, end)
