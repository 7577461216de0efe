# SPDX-License-Identifier: Apache-2.0
"""Saving a checkpoint works with torch 2.7 and later."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from recipe.overlay import Condition, patch


def _takes_a_format() -> bool:
    from torch.distributed.checkpoint import filesystem

    return "serialization_format" in inspect.signature(filesystem._write_item).parameters


@patch(
    "megatron.core.dist_checkpointing.strategies.filesystem_async:_write_item",
    why="newer versions of torch require serialization_format, which Megatron-core does not pass: every save raises "
    "TypeError",
    upstream="megatron-core==0.12.1",
    fingerprint="sha256:7b943f0342f4dd07c03473088a5c2d7778734f8a398196e107377ed34b2e9a78",
    remove_when="Megatron-core passes serialization_format",
    when=Condition(_takes_a_format, otherwise="this torch's checkpoint writer has no serialization_format"),
)
def _write_item(original: Callable[..., Any], *args: Any) -> Any:  # NPU-ADAPTATION: torch.save blobs, as before
    """Write one item as a torch.save blob."""
    from torch.distributed.checkpoint.filesystem import SerializationFormat

    return original(*args, SerializationFormat.TORCH_SAVE)
