# SPDX-License-Identifier: Apache-2.0
"""Parameters give their memory back and come back as they were; what was not loaded is found."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from verl.utils.device import get_torch_device

from verl_patches.workers.rollout.vllm_rollout.released_weights import (
    ReleasedWeights,
    check_coverage,
    check_no_poison,
    poison,
)


class Model(nn.Module):
    """Plain, tied, transposed and scalar parameters, two halves of one storage, an integer one, and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Parameter(torch.randn(6, 4))
        self.head = self.embed
        self.transposed = nn.Parameter(torch.randn(3, 5).t())
        self.scale = nn.Parameter(torch.tensor(2.0))
        both = torch.randn(8, 4, dtype=torch.bfloat16)
        self.first, self.second = nn.Parameter(both[:4]), nn.Parameter(both[4:])
        self.codes = nn.Parameter(torch.zeros(7, dtype=torch.int8), requires_grad=False)
        self.register_buffer("table", torch.randn(4))


def layout(model: nn.Module) -> dict[str, tuple[object, ...]]:
    return {
        name: (id(p), p.shape, p.stride(), p.storage_offset(), p.dtype, p.device, p.requires_grad)
        for name, p in model.named_parameters(remove_duplicate=False)
    }


@pytest.mark.parametrize("device", ["cpu", "npu"])
def test_a_cycle_keeps_identity_and_layout_and_frees_everything_in_between(device: str) -> None:
    model = Model().to(device)
    model.head = model.embed
    before, table = layout(model), model.table.clone()
    weights = ReleasedWeights(model)
    allocated = get_torch_device().memory_allocated()

    weights.release()
    assert not weights.on_device
    assert all(p.untyped_storage().nbytes() == 0 for p in model.parameters())
    if device == "npu":
        assert get_torch_device().memory_allocated() < allocated
    weights.release()

    weights.onload()
    assert weights.on_device
    assert layout(model) == before
    assert get_torch_device().memory_allocated() == allocated
    assert torch.equal(model.table, table)
    weights.onload()


def test_views_of_one_storage_share_it_again() -> None:
    model = Model()
    weights = ReleasedWeights(model)
    weights.release()
    weights.onload()
    assert model.first.untyped_storage().data_ptr() == model.second.untyped_storage().data_ptr()
    with torch.no_grad():
        model.first.fill_(1.0), model.second.fill_(2.0)
    assert (model.first == 1.0).all() and (model.second == 2.0).all()


def test_attributes_set_on_parameters_survive() -> None:
    model = Model()
    loader: Callable[[], None] = lambda: None  # noqa: E731  any object
    model.embed.weight_loader = loader  # type: ignore[attr-defined]  # as vLLM does
    weights = ReleasedWeights(model)
    weights.release()
    weights.onload()
    assert model.embed.weight_loader is loader  # type: ignore[attr-defined]  # as vLLM does


def test_using_a_released_weight_fails() -> None:
    model = nn.Linear(4, 4)
    ReleasedWeights(model).release()
    with pytest.raises(RuntimeError):
        model(torch.ones(2, 4))


def test_one_storage_with_two_dtypes_is_refused_before_anything_is_freed() -> None:
    model = nn.Module()
    storage = torch.zeros(8)
    model.a, model.b = nn.Parameter(storage[:4]), nn.Parameter(storage.view(torch.float16)[8:], requires_grad=False)
    with pytest.raises(RuntimeError, match="parameters a, b share one storage with different dtypes"):
        ReleasedWeights(model).release()
    assert model.a.numel() == 4


def test_poison_remains_exactly_where_nothing_was_loaded() -> None:
    model = Model()
    poison(model)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.is_floating_point():
                parameter.fill_(0.5)
        model.second[1, 2] = float("nan")
    with pytest.raises(RuntimeError, match=r"1 rollout parameters still hold NaN: second\."):
        check_no_poison(model)
    with torch.no_grad():
        model.second[1, 2] = 0.0
    check_no_poison(model)


def test_a_parameter_the_sync_left_out_is_named() -> None:
    model = Model()
    names = {name for name, _ in model.named_parameters()}
    check_coverage(model, names | {"unknown.to.us"})
    with pytest.raises(RuntimeError, match=r"left out 2 rollout parameters: scale, transposed\."):
        check_coverage(model, names - {"scale", "transposed"})


def test_a_long_list_of_missing_parameters_is_cut() -> None:
    with pytest.raises(RuntimeError, match=r"left out 20 .* and 12 more\."):
        check_coverage(nn.ModuleList([nn.Linear(1, 1) for _ in range(10)]), set())
