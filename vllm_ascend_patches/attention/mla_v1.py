# SPDX-License-Identifier: Apache-2.0
"""A prompt's piece of one token, among longer ones and without anything that decodes, gets its place in the cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vllm_ascend.attention.attention_v1 import AscendAttentionState

from recipe.overlay import patch


@patch(
    "vllm_ascend.attention.mla_v1:AscendMLAMetadataBuilder.build",
    why="in graph mode a step of first pieces of prompts writes the cache as if none had one token: attention takes "
    "those for decodes and leaves them out, and with as many slots too many the others are written to wrong ones",
    upstream="vllm-ascend==0.9.1",
    fingerprint="sha256:a3e76d8239ea5291936f30ba3758d740e5012934f7717a3dc4cb547f90ebdbff",
    remove_when="vllm-ascend's attention in graph mode writes what it takes for decodes in every state, in the pin",
)
def build(original: Callable[..., Any], self: Any, *args: Any, **kwargs: Any) -> Any:
    metadata = original(self, *args, **kwargs)
    # NPU-ADAPTATION: such a step is what it looks like, one of prompts beside decodes, in which both are written
    if (
        self.torchair_graph_enabled
        and metadata.num_decodes
        and metadata.attn_state == AscendAttentionState.PrefillNoCache
    ):
        metadata.attn_state = AscendAttentionState.ChunkedPrefill
    return metadata
