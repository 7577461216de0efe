# SPDX-License-Identifier: Apache-2.0
"""Dot-product attention under Transformer Engine's name: packed (thd) and padded (sbhd), float32 scores and softmax.

Packed sequences are spread into padded batches, so that the cost does not grow with the number of sequences in Python:
sequences are sorted by length and cut into few batches of limited area, each one batched matrix product.
"""

# NPU-ADAPTATION: Transformer Engine's attention in plain torch

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from megatron.core.transformer.enums import AttnMaskType

from megatron_patches.core.extensions.standin.refusal import refuse, refuse_fp8

_CAUSAL = (AttnMaskType.causal, AttnMaskType.padding_causal)
_KNOWN = (*_CAUSAL, AttnMaskType.padding, AttnMaskType.no_mask)
# Scores of one padded batch, in elements for each head (float32, 16 MiB for 4 heads).
_MAX_AREA = 1024 * 1024


def _weights(q: torch.Tensor, k: torch.Tensor, scale: float, bias: torch.Tensor | None) -> torch.Tensor:
    """softmax(scale · q kᵀ + bias) in float32: q [b, g, r, sq, dk], k [b, g, sk, dk] -> [b, g, r, sq, sk]."""
    scores = torch.matmul(q.float() * scale, k.float().unsqueeze(2).transpose(-1, -2))
    if bias is not None:
        scores += bias
    return torch.softmax(scores, dim=-1)


def _gradients(
    grad: torch.Tensor, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, weights: torch.Tensor, scale: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients (float32) of sum(grad · weights v) for q [b, g, r, sq, dk], k [b, g, sk, dk], v [b, g, sk, dv]."""
    grad, q, k, v = grad.float(), q.float(), k.float().unsqueeze(2), v.float().unsqueeze(2)
    grad_v = torch.matmul(weights.transpose(-1, -2), grad).sum(dim=2)
    grad_scores = torch.matmul(grad, v.transpose(-1, -2))
    # d softmax = w · (g - sum(g · w)); the sum over the keys equals <grad, output>, which is cheaper to form.
    grad_scores -= (grad * torch.matmul(weights, v)).sum(dim=-1, keepdim=True)
    grad_scores *= weights
    grad_q = torch.matmul(grad_scores, k) * scale
    grad_k = (torch.matmul(grad_scores.transpose(-1, -2), q) * scale).sum(dim=2)
    return grad_q, grad_k, grad_v


class _PaddedAttention(torch.autograd.Function):
    """Attention of one padded batch as one autograd node that keeps its inputs only and forms the weights again."""

    @staticmethod
    def forward(
        ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float, bias: torch.Tensor | None
    ) -> torch.Tensor:
        ctx.save_for_backward(q, k, v, bias)
        ctx.scale = scale
        return torch.matmul(_weights(q, k, scale, bias), v.float().unsqueeze(2)).to(v.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        q, k, v, bias = ctx.saved_tensors
        grad_q, grad_k, grad_v = _gradients(grads[0], q, k, v, _weights(q, k, ctx.scale, bias), ctx.scale)
        return grad_q.to(q.dtype), grad_k.to(k.dtype), grad_v.to(v.dtype), None, None


def attend(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float, blocked: torch.Tensor | None
) -> torch.Tensor:
    """softmax(scale · q kᵀ) v in float32; a query that may look at nothing gives zeros.

    Args:
        q: [b, n, sq, dk]; k: [b, g, sk, dk]; v: [b, g, sk, dv] with n a multiple of g (grouped queries).
        blocked: bool [sq or 1, sk] or [b, 1, sq or 1, sk]; True where a query must not look. None: all may look.

    Returns:
        [b, n, sq, dv] in the dtype of v.
    """
    grouped = q.unflatten(1, (k.shape[1], -1))
    if blocked is None:
        return _PaddedAttention.apply(grouped, k, v, scale, None).flatten(1, 2)
    if blocked.dim() == 4:
        blocked = blocked.unsqueeze(2)
    # A row of nothing but -inf would give NaN: such a query looks everywhere, and its result is dropped.
    dead = blocked.all(dim=-1, keepdim=True)
    bias = torch.zeros(blocked.shape, device=blocked.device).masked_fill(blocked & ~dead, float("-inf"))
    return _PaddedAttention.apply(grouped, k, v, scale, bias).masked_fill(dead, 0.0).flatten(1, 2)


class _Spread(NamedTuple):
    """How one padded batch [count, longest] is read from packed rows and written back."""

    shape: tuple[int, int]
    read: torch.Tensor  # [count * longest] int64: the packed row at each place; padding repeats a sequence's last row
    picked: torch.Tensor  # [rows] int64: the places that are no padding
    rows: torch.Tensor  # [rows] int64: the packed row of each picked place
    bias: torch.Tensor  # float32, broadcastable to [count, g, r, longest, longest]: 0, or -inf where hidden


class _Packing(NamedTuple):
    """Which packed rows are a sequence, and whether a query looks at later ones."""

    starts: list[int]
    lengths: list[int]
    causal: bool


def _spreads(packing: _Packing, device: torch.device) -> Iterator[_Spread]:
    """Few padded batches over all sequences, each with count · longest² <= _MAX_AREA (or of a single sequence)."""
    starts, lengths, causal = packing
    batches: list[list[int]] = []
    for i in sorted((i for i, n in enumerate(lengths) if n), key=lambda i: lengths[i]):
        if batches and (len(batches[-1]) + 1) * lengths[i] ** 2 <= _MAX_AREA:
            batches[-1].append(i)
        else:
            batches.append([i])
    for batch in batches:
        longest = lengths[batch[-1]]
        first = torch.tensor([starts[i] for i in batch])[:, None]
        size = torch.tensor([lengths[i] for i in batch])[:, None]
        place = torch.arange(longest)[None]
        read = (first + torch.minimum(place, size - 1)).flatten()
        picked = (place < size).flatten().nonzero().squeeze(1)
        if causal:
            # Padding comes after a sequence's own rows, so the causal mask hides it from every one of them.
            hidden = torch.ones(longest, longest, dtype=torch.bool).triu(1)
        else:
            hidden = (place >= size)[:, None, None, None, :]
        bias = torch.zeros(hidden.shape).masked_fill(hidden, float("-inf"))
        moved = (t.to(device) for t in (read, picked, read[picked], bias))
        yield _Spread((len(batch), longest), *moved)


class _PackedAttention(torch.autograd.Function):
    """Attention within packed sequences as one autograd node.

    Reading padded batches from packed rows and writing them back are each other's gradients, so both directions are
    plain row selections; autograd's own gradient of an indexed read would add row by row. Only the inputs are kept, as
    a fused kernel does: places, masks and weights are formed again in backward.
    """

    @staticmethod
    def _read(spread: _Spread, t: torch.Tensor) -> torch.Tensor:
        """[t, n, d] -> [count, n, longest, d]."""
        return t.index_select(0, spread.read).unflatten(0, spread.shape).transpose(1, 2)

    @staticmethod
    def _write(spread: _Spread, target: torch.Tensor, t: torch.Tensor) -> None:
        """[count, n, longest, d] into the rows of target [t, n, d]."""
        packed = t.transpose(1, 2).flatten(0, 1).index_select(0, spread.picked)
        target.index_copy_(0, spread.rows, packed.to(target.dtype))

    # What is formed for a batch is given back with the call that forms it, before the next batch.

    @staticmethod
    def _attended(spread: _Spread, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float) -> torch.Tensor:
        """[count, n, longest, dv] in float32."""
        q, k, v = (_PackedAttention._read(spread, t) for t in (q, k, v))
        weights = _weights(q.unflatten(1, (k.shape[1], -1)), k, scale, spread.bias)
        return torch.matmul(weights, v.float().unsqueeze(2)).flatten(1, 2)

    @staticmethod
    def _write_gradients(
        spread: _Spread, targets: list[torch.Tensor], grad: torch.Tensor, inputs: tuple[torch.Tensor, ...], scale: float
    ) -> None:
        q, k, v = (_PackedAttention._read(spread, t) for t in inputs)
        heads = (k.shape[1], -1)
        q = q.unflatten(1, heads)
        weights = _weights(q, k, scale, spread.bias)
        padded = grad.new_zeros(len(spread.read), *grad.shape[1:])
        padded.index_copy_(0, spread.picked, grad.index_select(0, spread.rows))
        padded = padded.unflatten(0, spread.shape).transpose(1, 2).unflatten(1, heads)
        grad_q, grad_k, grad_v = _gradients(padded, q, k, v, weights, scale)
        for target, value in zip(targets, (grad_q.flatten(1, 2), grad_k, grad_v), strict=True):
            _PackedAttention._write(spread, target, value)

    @staticmethod
    def forward(
        ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float, packing: _Packing
    ) -> torch.Tensor:
        out = v.new_zeros(q.shape[0], q.shape[1], v.shape[2])
        for spread in _spreads(packing, q.device):
            _PackedAttention._write(spread, out, _PackedAttention._attended(spread, q, k, v, scale))
        ctx.save_for_backward(q, k, v)
        ctx.scale, ctx.packing = scale, packing
        return out

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        inputs = ctx.saved_tensors
        results = [torch.zeros_like(t) for t in inputs]
        for spread in _spreads(ctx.packing, grads[0].device):
            _PackedAttention._write_gradients(spread, results, grads[0], inputs, ctx.scale)
        return (*results, None, None)


def attend_packed(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, starts: list[int], lengths: list[int], scale: float, causal: bool
) -> torch.Tensor:
    """Attention within each of many sequences that lie one after the other.

    Args:
        q, k, v: [t, n, dk], [t, g, dk], [t, g, dv]; sequence i is rows starts[i] … starts[i] + lengths[i].

    Returns:
        [t, n, dv] in the dtype of v; rows of no sequence are zero.
    """
    return _PackedAttention.apply(q, k, v, scale, _Packing(starts, lengths, causal))


class TEDotProductAttention(torch.nn.Module):
    """softmax(scale · q kᵀ) v; no parameters, no dropout, self-attention on one context-parallel rank."""

    def __init__(
        self,
        config: Any,
        layer_number: int,
        attn_mask_type: AttnMaskType,
        attention_type: str,
        attention_dropout: float | None = None,
        softmax_scale: float | None = None,
        k_channels: int | None = None,
        v_channels: int | None = None,
        cp_comm_type: str | None = "p2p",
    ) -> None:
        super().__init__()
        name = type(self).__name__
        refuse_fp8(name, config)
        dropout = config.attention_dropout if attention_dropout is None else attention_dropout
        if dropout:
            refuse(name, f"attention_dropout={dropout}", "set it to 0")
        if config.context_parallel_size > 1:
            refuse(name, f"context_parallel_size={config.context_parallel_size}", "set it to 1")
        if attention_type != "self":
            refuse(name, f"attention_type={attention_type!r}", "only self-attention is stood in for")
        if config.window_size is not None:
            refuse(name, f"window_size={config.window_size}", "set it to None")
        if config.apply_query_key_layer_scaling:
            refuse(name, "apply_query_key_layer_scaling=True", "set it to False")
        self.config = config
        self.layer_number = layer_number
        self.attn_mask_type = attn_mask_type
        self.k_channels = config.kv_channels if k_channels is None else k_channels
        self.v_channels = config.kv_channels if v_channels is None else v_channels
        self.softmax_scale = self.k_channels**-0.5 if softmax_scale is None else softmax_scale

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        attn_mask_type: AttnMaskType | None = None,
        attention_bias: torch.Tensor | None = None,
        packed_seq_params: Any = None,
    ) -> torch.Tensor:
        """Attention over padded sequences [s, b, n, d] or packed ones [t, n, d] (or [t, 1, n, d]).

        attention_mask (padded, mask types `padding` and `padding_causal`): bool, broadcastable to [b, 1, s, s], True
        where a query must not look. For packed sequences the lengths say everything.

        Returns:
            [s, b, n · v_channels] or [t, n · v_channels].
        """
        name = type(self).__name__
        mask_type = self.attn_mask_type if attn_mask_type is None else attn_mask_type
        if mask_type not in _KNOWN:
            refuse(name, f"attn_mask_type={mask_type.name}", f"use one of {', '.join(m.name for m in _KNOWN)}")
        if attention_bias is not None:
            refuse(name, "an attention_bias was passed", "only masks are stood in for")
        for label, tensor, channels in (("key", key, self.k_channels), ("value", value, self.v_channels)):
            if tensor.shape[-1] != channels:
                raise ValueError(f"{name}: {label} has {tensor.shape[-1]} channels, the layer was made for {channels}")
        if packed_seq_params is not None:
            return self._packed(query, key, value, mask_type, packed_seq_params)
        q, k, v = (t.permute(1, 2, 0, 3) for t in (query, key, value))
        out = attend(q, k, v, self.softmax_scale, self._blocked(q, k, mask_type, attention_mask))
        return out.permute(2, 0, 1, 3).flatten(2)

    @staticmethod
    def _blocked(
        q: torch.Tensor, k: torch.Tensor, mask_type: AttnMaskType, attention_mask: torch.Tensor | None
    ) -> torch.Tensor | None:
        blocked = None
        if mask_type in _CAUSAL:
            if q.shape[2] != k.shape[2]:
                raise ValueError(
                    f"causal attention of {q.shape[2]} queries to {k.shape[2]} keys: lengths must be equal"
                )
            blocked = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).triu(1).to(q.device)
        if mask_type in (AttnMaskType.padding, AttnMaskType.padding_causal) and attention_mask is not None:
            blocked = attention_mask if blocked is None else blocked | attention_mask
        return blocked

    def _packed(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask_type: AttnMaskType, packed: Any
    ) -> torch.Tensor:
        name = type(self).__name__
        if packed.qkv_format != "thd":
            refuse(name, f"qkv_format={packed.qkv_format!r} of the packed sequences", "use 'thd'")
        q, k, v = (t.squeeze(1) if t.dim() == 4 else t for t in (query, key, value))
        cumulative = packed.cu_seqlens_q.tolist()
        if packed.cu_seqlens_kv is not packed.cu_seqlens_q and packed.cu_seqlens_kv.tolist() != cumulative:
            refuse(name, "queries and keys of different lengths", "only self-attention is stood in for")
        padded = cumulative if packed.cu_seqlens_q_padded is None else packed.cu_seqlens_q_padded.tolist()
        if padded[-1] > q.shape[0]:
            raise ValueError(f"{name}: the packed lengths reach row {padded[-1]}, the tensors have {q.shape[0]} rows")
        lengths = [b - a for a, b in itertools.pairwise(cumulative)]
        causal = mask_type in _CAUSAL
        return attend_packed(q, k, v, padded[:-1], lengths, self.softmax_scale, causal).flatten(1)
