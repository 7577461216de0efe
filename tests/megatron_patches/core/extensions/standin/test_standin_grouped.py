# SPDX-License-Identifier: Apache-2.0
"""The grouped linears against one matrix product for each expert, with gradients, and what they refuse."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from megatron_patches.core.extensions.standin import TEColumnParallelGroupedLinear, TERowParallelGroupedLinear
from megatron_patches.core.extensions.standin.refusal import StandInRefusal


def grouped(made: Any, count: int, kind: type = TEColumnParallelGroupedLinear, **changes: Any) -> Any:
    options = {"init_method": torch.nn.init.normal_, "bias": False, "skip_bias_add": True, "is_expert": True}
    return kind(count, 5, 3, config=made, **{**options, **changes})


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(splits=st.lists(st.integers(0, 6), min_size=1, max_size=6), frozen=st.booleans())
def test_values_and_gradients(splits: list[int], frozen: bool, one_rank: None, config: Any) -> None:
    """Any split of the rows, empty groups too; an expert without rows has a zero gradient, not none."""
    layer = grouped(config(), len(splits))
    x = torch.randn(sum(splits), 5, generator=torch.Generator().manual_seed(len(splits))).requires_grad_(not frozen)
    x64 = x.detach().double().requires_grad_()
    w64 = [p.detach().double().requires_grad_() for p in layer.parameters()]
    theirs = torch.cat([part @ w.t() for part, w in zip(x64.split(splits), w64, strict=True)])
    ours, bias = layer(x, torch.tensor(splits) if frozen else splits)
    assert bias is None
    torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-6)
    ours.pow(2).sum().backward()
    theirs.pow(2).sum().backward()
    for ours_p, theirs_p in zip(layer.parameters(), w64, strict=True):
        expected = torch.zeros_like(theirs_p) if theirs_p.grad is None else theirs_p.grad
        torch.testing.assert_close(ours_p.grad.double(), expected, rtol=1e-4, atol=1e-5)
    if frozen:
        assert x.grad is None
    else:
        torch.testing.assert_close(x.grad.double(), x64.grad, rtol=1e-4, atol=1e-5)


def test_names_and_reduction_marks(one_rank: None, config: Any) -> None:
    layer = grouped(config(), 3, TERowParallelGroupedLinear)
    assert [name for name, _ in layer.named_parameters()] == ["weight0", "weight1", "weight2"]
    assert all(p.allreduce for p in layer.parameters())
    spread = grouped(config(num_moe_experts=4, expert_model_parallel_size=2), 2)
    assert not any(p.allreduce for p in spread.parameters())


def test_experts_start_differently(one_rank: None, config: Any) -> None:
    layer = grouped(config(), 2)
    assert not torch.equal(layer.weight0, layer.weight1)


def test_sharded_names_are_those_of_sequential_experts(
    one_rank: None, config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from megatron.core import parallel_state

    monkeypatch.setattr(parallel_state, "_MPU_EXPERT_MODEL_PARALLEL_WORLD_SIZE", 4)
    monkeypatch.setattr(parallel_state, "_MPU_EXPERT_MODEL_PARALLEL_RANK", 2)
    monkeypatch.setattr(parallel_state, "get_expert_data_parallel_rank", lambda: 1)
    monkeypatch.setattr(parallel_state, "get_data_parallel_rank", lambda **kwargs: 5)
    sharded = grouped(config(), 2).sharded_state_dict("mlp.linear_fc1.")
    assert list(sharded) == ["mlp.linear_fc1.weight0", "mlp.linear_fc1.weight1"]
    for i, entry in enumerate(sharded.values()):
        assert entry.key == "mlp.linear_fc1.weight"
        assert entry.global_shape == (8, 3, 5)
        assert entry.global_offset == (4 + i, 0, 0)
        assert entry.replica_id == (0, 0, 1)


def test_refuses(one_rank: None, config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StandInRefusal, match="fp8='e4m3'"):
        grouped(config(fp8="e4m3"), 2)
    with pytest.raises(StandInRefusal, match="bias=True"):
        grouped(config(), 2, bias=True)
    with pytest.raises(StandInRefusal, match="is_expert=False"):
        grouped(config(), 2, is_expert=False)
    with pytest.raises(ValueError, match="1 splits that sum to 4 for 2 weights and 4 rows"):
        grouped(config(), 2)(torch.zeros(4, 5), [4])
    with pytest.raises(ValueError, match="2 splits that sum to 3 for 2 weights and 4 rows"):
        grouped(config(), 2)(torch.zeros(4, 5), [1, 2])
    from megatron.core import parallel_state

    monkeypatch.setattr(parallel_state, "_MPU_EXPERT_TENSOR_PARALLEL_WORLD_SIZE", 2)
    with pytest.raises(StandInRefusal, match="expert_tensor_parallel_size=2"):
        grouped(config(), 2)
