# SPDX-License-Identifier: Apache-2.0
"""TENorm and the linear layers against their formulas in float64, with gradients, and what they refuse."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from megatron_patches.core.extensions.standin import (
    TEColumnParallelLinear,
    TECudaRNGStatesTracker,
    TEDelayedScaling,
    TELayerNormColumnParallelLinear,
    TELinear,
    TENorm,
    TERowParallelLinear,
    te_checkpoint,
)
from megatron_patches.core.extensions.standin.refusal import StandInRefusal


def norm_formula(x: torch.Tensor, gain: torch.Tensor, eps: float) -> torch.Tensor:
    return x / (x.pow(2).mean(-1, keepdim=True) + eps).sqrt() * gain


def assert_gradients(pairs: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
    for ours, theirs in pairs:
        torch.testing.assert_close(ours.grad.double(), theirs.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("zero_centered", [False, True])
def test_norm(zero_centered: bool, config: Any) -> None:
    layer = TENorm(config(layernorm_zero_centered_gamma=zero_centered), 16, eps=1e-3)
    neutral = torch.zeros(16) if zero_centered else torch.ones(16)
    assert torch.equal(layer.weight, neutral)
    with torch.no_grad():
        layer.weight.normal_(generator=torch.Generator().manual_seed(0))
    x = torch.randn(5, 2, 16, generator=torch.Generator().manual_seed(1)).mul(0.05).requires_grad_()
    x64, w64 = (t.detach().double().requires_grad_() for t in (x, layer.weight))
    theirs = norm_formula(x64, w64 + 1 if zero_centered else w64, 1e-3)
    ours = layer(x)
    torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-6)
    ours.pow(3).sum().backward()
    theirs.pow(3).sum().backward()
    assert_gradients([(x, x64), (layer.weight, w64)])


def test_norm_of_bf16_rounds_once(config: Any) -> None:
    layer = TENorm(config(params_dtype=torch.bfloat16), 16)
    x = torch.randn(64, 16, generator=torch.Generator().manual_seed(2)).bfloat16()
    assert torch.equal(layer(x), norm_formula(x.double(), torch.ones(16).double(), 1e-5).float().bfloat16())


def test_norm_marks_its_weight_for_sequence_parallelism(config: Any) -> None:
    made = config()
    made.sequence_parallel = True
    assert TENorm(made, 16).weight.sequence_parallel is True


def linear(kind: type, made: Any, **changes: Any) -> Any:
    options = {"init_method": torch.nn.init.normal_, "bias": False, "skip_bias_add": False, "is_expert": False}
    return kind(16, 6, config=made, **{**options, **changes})


@pytest.mark.parametrize("kind", [TEColumnParallelLinear, TERowParallelLinear, TELayerNormColumnParallelLinear])
def test_linear(kind: type, one_rank: None, config: Any) -> None:
    row = kind is TERowParallelLinear
    layer = linear(kind, config(), **({"input_is_parallel": True} if row else {"gather_output": False}))
    fused = kind is TELayerNormColumnParallelLinear
    names = {"weight", "layer_norm_weight"} if fused else {"weight"}
    assert {name for name, _ in layer.named_parameters()} == names
    x = torch.randn(5, 2, 16, generator=torch.Generator().manual_seed(1)).requires_grad_()
    x64, w64 = (t.detach().double().requires_grad_() for t in (x, layer.weight))
    theirs, pairs = x64, [(x, x64), (layer.weight, w64)]
    if fused:
        with torch.no_grad():
            layer.layer_norm_weight.uniform_(0.5, 2.0)
        g64 = layer.layer_norm_weight.detach().double().requires_grad_()
        theirs = norm_formula(theirs, g64, 1e-5)
        pairs.append((layer.layer_norm_weight, g64))
    theirs = theirs @ w64.t()
    ours, bias = layer(x)
    assert bias is None
    torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-5)
    ours.pow(2).sum().backward()
    theirs.pow(2).sum().backward()
    assert_gradients(pairs)


def test_linears_refuse(one_rank: None, config: Any) -> None:
    with pytest.raises(StandInRefusal, match="fp8='hybrid'"):
        linear(TEColumnParallelLinear, config(fp8="hybrid"), gather_output=False)
    with pytest.raises(StandInRefusal, match="tp_comm_overlap"):
        linear(TERowParallelLinear, config(tp_comm_overlap=True), input_is_parallel=True)
    with pytest.raises(StandInRefusal, match="gather_output=True"):
        linear(TEColumnParallelLinear, config(), gather_output=True)
    with pytest.raises(StandInRefusal, match="input_is_parallel=False"):
        linear(TERowParallelLinear, config(), input_is_parallel=False)
    with pytest.raises(StandInRefusal, match="normalization='LayerNorm'"):
        linear(TELayerNormColumnParallelLinear, config(normalization="LayerNorm"), gather_output=False)
    with pytest.raises(StandInRefusal, match="normalization='LayerNorm'"):
        TENorm(config(normalization="LayerNorm"), 16)


@pytest.mark.parametrize("name", [TELinear, TEDelayedScaling, TECudaRNGStatesTracker, te_checkpoint])
def test_what_is_not_stood_in_for_refuses_by_name(name: type) -> None:
    with pytest.raises(StandInRefusal, match=name.__name__):
        name(1, two=2)
