# SPDX-License-Identifier: Apache-2.0
"""Rotary embedding of packed sequences without a Python loop over the sequences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from megatron.core import parallel_state

from megatron_patches.environment import plain_megatron
from recipe.overlay import patch


@patch(
    "megatron.core.models.common.embeddings.rope_utils:_apply_rotary_pos_emb_thd",
    why="it rotates sequence by sequence, which is 5 to 15 % of a training step of 128 short sequences (simulated NPU, "
    "one thread); where Transformer Engine or MindSpeed is installed a fused kernel does this",
    upstream="megatron-core==0.12.1",
    fingerprint="sha256:4f10cf2a9b47d517f665b4c96b2b7413f26b4a02804077e4d75113c8d46f5925",
    remove_when="every machine this runs on has MindSpeed or Transformer Engine",
    when=plain_megatron,
)
def _apply_rotary_pos_emb_thd(  # NPU-ADAPTATION: one rotation of all rows by their positions
    original: Callable[..., torch.Tensor],
    t: torch.Tensor,
    cu_seqlens: torch.Tensor,
    freqs: torch.Tensor,
    **kwargs: Any,
) -> torch.Tensor:
    """Rotate t [rows, h, d] by freqs [positions, 1, 1, d]; row r is at position r - (start of its sequence)."""
    if parallel_state.get_context_parallel_world_size() > 1:
        return original(t, cu_seqlens, freqs, **kwargs)
    from megatron.core.models.common.embeddings.rope_utils import _apply_rotary_pos_emb_bshd

    bounds = cu_seqlens.cpu().long()
    starts = torch.repeat_interleave(bounds[:-1], bounds.diff())
    positions = (torch.arange(len(starts)) - starts).to(freqs.device)
    return _apply_rotary_pos_emb_bshd(t.unsqueeze(1), freqs.index_select(0, positions), **kwargs).squeeze(1)
