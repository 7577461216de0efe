# SPDX-License-Identifier: Apache-2.0
"""TEDotProductAttention against attention written out sequence by sequence in float64, with gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from megatron.core.packed_seq_params import PackedSeqParams
from megatron.core.transformer.enums import AttnMaskType

from megatron_patches.core.extensions.standin import TEDotProductAttention, attention
from megatron_patches.core.extensions.standin.refusal import StandInRefusal


def reference(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float, visible: Callable[[int, int], bool]
) -> torch.Tensor:
    """[s, n, d] of one sequence, query by query and head by head; visible(i, j): may query i look at key j?"""
    out = []
    for i in range(q.shape[0]):
        heads = []
        for head in range(q.shape[1]):
            group = head // (q.shape[1] // k.shape[1])
            keys = [j for j in range(k.shape[0]) if visible(i, j)]
            if not keys:
                heads.append(torch.zeros(v.shape[2], dtype=q.dtype))
                continue
            scores = torch.stack([scale * (q[i, head] * k[j, group]).sum() for j in keys])
            weights = scores.exp() / scores.exp().sum()
            heads.append(sum(w * v[j, group] for w, j in zip(weights, keys, strict=True)))
        out.append(torch.stack(heads))
    return torch.stack(out)


def inputs(rows: int, seed: int, heads: int = 4, groups: int = 4) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = [(rows, heads, 6), (rows, groups, 6), (rows, groups, 3)]
    return [torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_() for shape in shapes]


def assert_same(ours: torch.Tensor, theirs: torch.Tensor, mine: list[torch.Tensor], yours: list[torch.Tensor]) -> None:
    torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-6)
    weight = torch.randn(theirs.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    (ours.double() * weight).sum().backward()
    (theirs * weight).sum().backward()
    for a, b in zip(mine, yours, strict=True):
        expected = torch.zeros_like(b) if b.grad is None else b.grad
        torch.testing.assert_close(a.grad.double(), expected, rtol=1e-4, atol=1e-5)


def float32(tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    return [t.detach().float().requires_grad_() for t in tensors]


@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 9), min_size=1, max_size=7),
    holes=st.integers(0, 3),
    groups=st.sampled_from([1, 2, 4]),
    causal=st.booleans(),
    area=st.sampled_from([1, 60, 10**6]),
)
def test_packed(lengths: list[int], holes: int, groups: int, causal: bool, area: int) -> None:
    """Sequences of any lengths, with unused rows after each, in one or in many padded batches."""
    starts = [sum(lengths[:i]) + holes * i for i in range(len(lengths))]
    total = sum(lengths) + holes * len(lengths)
    yours = inputs(total, seed=total, groups=groups)
    mine = float32(yours)
    previous, attention._MAX_AREA = attention._MAX_AREA, area
    try:
        ours = attention.attend_packed(*mine, starts, lengths, 0.3, causal)
    finally:
        attention._MAX_AREA = previous
    pieces = []
    for start, length in zip(starts, lengths, strict=True):
        rows = slice(start, start + length)
        if length:
            pieces.append(reference(*(t[rows] for t in yours), 0.3, lambda i, j: not causal or j <= i))
        pieces.append(torch.zeros(holes, 4, 3, dtype=torch.float64))
    theirs = torch.cat(pieces)
    if ours.numel() and theirs.requires_grad:
        assert_same(ours, theirs, mine, yours)
    else:
        assert ours.shape == theirs.shape


@pytest.mark.parametrize("mask_type", [AttnMaskType.causal, AttnMaskType.padding_causal, AttnMaskType.padding])
@pytest.mark.parametrize("groups", [1, 4])
def test_padded(mask_type: AttnMaskType, groups: int, config: Any) -> None:
    """[s, b, n, d] with k and v channels of different size; padding hides the last keys of the second sequence."""
    layer = TEDotProductAttention(
        config(), 1, AttnMaskType.causal, "self", softmax_scale=0.4, k_channels=6, v_channels=3
    )
    yours = inputs(2 * 5, seed=3, groups=groups)
    mine = float32(yours)
    hidden = torch.zeros(2, 1, 1, 5, dtype=torch.bool)
    hidden[1, ..., 3:] = True
    padded = [t.view(2, 5, *t.shape[1:]).transpose(0, 1) for t in mine]
    ours = layer(*padded, hidden, attn_mask_type=mask_type)
    assert ours.shape == (5, 2, 12)

    def visible(row: int) -> Callable[[int, int], bool]:
        padding, causal = mask_type != AttnMaskType.causal, mask_type != AttnMaskType.padding
        return lambda i, j: (not causal or j <= i) and not (padding and row == 1 and j >= 3)

    rows = [reference(*(t[5 * b : 5 * b + 5] for t in yours), 0.4, visible(b)) for b in range(2)]
    assert_same(ours, torch.stack(rows, dim=1).flatten(2), mine, yours)


def test_a_query_that_may_look_at_nothing_gives_zeros_and_no_nan(config: Any) -> None:
    layer = TEDotProductAttention(config(), 1, AttnMaskType.padding, "self", k_channels=6, v_channels=3)
    q, k, v = (t[:, None] for t in float32(inputs(4, seed=5)))
    hidden = torch.ones(1, 1, 4, 4, dtype=torch.bool)
    hidden[..., 2:, :] = False
    for leaf in (q, k, v):
        leaf.retain_grad()
    out = layer(q, k, v, hidden)
    assert torch.equal(out[:2], torch.zeros(2, 1, 12))
    out.sum().backward()
    assert torch.equal(q.grad[:2], torch.zeros_like(q.grad[:2]))
    assert all(t.grad.isfinite().all() for t in (q, k, v))


def packed(lengths: list[int], padded: list[int] | None = None) -> PackedSeqParams:
    bounds = torch.tensor([0, *lengths]).cumsum(0).int()
    wide = None if padded is None else torch.tensor([0, *padded]).cumsum(0).int()
    return PackedSeqParams(
        qkv_format="thd", cu_seqlens_q=bounds, cu_seqlens_kv=bounds, cu_seqlens_q_padded=wide, cu_seqlens_kv_padded=wide
    )


@pytest.mark.parametrize("extra_axis", [False, True])
def test_packed_parameters_and_padded_places(extra_axis: bool, config: Any) -> None:
    layer = TEDotProductAttention(config(), 1, AttnMaskType.causal, "self", 0.0, 0.4, 6, 3)
    yours = inputs(8, seed=9)
    mine = float32(yours)
    given_rows = [t[:, None] for t in mine] if extra_axis else mine
    ours = layer(*given_rows, None, packed_seq_params=packed([3, 2], padded=[4, 4]))
    first = reference(*(t[:3] for t in yours), 0.4, lambda i, j: j <= i)
    second = reference(*(t[4:6] for t in yours), 0.4, lambda i, j: j <= i)
    hole = torch.zeros(1, 4, 3, dtype=torch.float64)
    assert_same(ours, torch.cat([first, hole, second, hole, hole]).flatten(1), mine, yours)


def test_bf16_inputs_are_computed_in_float32(config: Any) -> None:
    """Scores near 500 lose whole units in bf16; float32 keeps the softmax right."""
    layer = TEDotProductAttention(config(), 1, AttnMaskType.causal, "self", 0.0, 0.9, 6, 3)
    exact = [(t * 9).detach().bfloat16() for t in inputs(7, seed=2)]
    ours = layer(*exact, None, packed_seq_params=packed([7]))
    theirs = reference(*(t.double() for t in exact), 0.9, lambda i, j: j <= i).flatten(1)
    assert ours.dtype == torch.bfloat16
    torch.testing.assert_close(ours.double(), theirs, rtol=2**-7, atol=1e-3)


def test_default_scale_is_of_the_key_channels(config: Any) -> None:
    layer = TEDotProductAttention(config(), 1, AttnMaskType.causal, "self", k_channels=6, v_channels=3)
    assert layer.softmax_scale == pytest.approx(6**-0.5)


@pytest.mark.parametrize(
    ("settings_", "arguments", "said"),
    [
        ({"attention_dropout": 0.1}, {}, "attention_dropout=0.1"),
        ({"fp8": "e4m3"}, {}, "fp8='e4m3'"),
        ({}, {"attention_type": "cross"}, "attention_type='cross'"),
        ({"window_size": (4, 0)}, {}, "window_size"),
    ],
)
def test_refuses_at_construction(settings_: dict[str, Any], arguments: dict[str, Any], said: str, config: Any) -> None:
    with pytest.raises(StandInRefusal, match=said):
        TEDotProductAttention(config(**settings_), 1, AttnMaskType.causal, **{"attention_type": "self", **arguments})


def test_refuses_context_parallelism(config: Any) -> None:
    made = config()
    made.context_parallel_size = 2
    with pytest.raises(StandInRefusal, match="context_parallel_size=2"):
        TEDotProductAttention(made, 1, AttnMaskType.causal, "self")


def test_refuses_what_it_cannot_compute(config: Any) -> None:
    layer = TEDotProductAttention(config(), 1, AttnMaskType.causal, "self", k_channels=6, v_channels=3)
    q, k, v = float32(inputs(4, seed=0))
    with pytest.raises(StandInRefusal, match="attn_mask_type=arbitrary"):
        layer(q[:, None], k[:, None], v[:, None], None, attn_mask_type=AttnMaskType.arbitrary)
    with pytest.raises(StandInRefusal, match="attention_bias"):
        layer(q[:, None], k[:, None], v[:, None], None, attention_bias=torch.zeros(1))
    with pytest.raises(ValueError, match="value has 6 channels, the layer was made for 3"):
        layer(q[:, None], k[:, None], k[:, None], None)
    with pytest.raises(StandInRefusal, match="different lengths"):
        params = packed([4])
        params.cu_seqlens_kv = torch.tensor([0, 3]).int()
        layer(q, k, v, None, packed_seq_params=params)
    with pytest.raises(ValueError, match="reach row 5, the tensors have 4 rows"):
        layer(q, k, v, None, packed_seq_params=packed([5]))


def test_keeps_only_its_inputs_for_backward() -> None:
    """As a fused kernel: memory grows with the rows, not with the squares of the lengths."""
    q, k, v = float32(inputs(60, seed=4))
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.data_ptr()] = tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        attention.attend_packed(q, k, v, [0, 30], [30, 30], 0.4, True)
    assert sum(kept.values()) == q.numel() + k.numel() + v.numel()
