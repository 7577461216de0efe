# SPDX-License-Identifier: Apache-2.0
"""The JSON-lines metrics file: any scalar can be written, and a line is there as soon as its step is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from recipe.overlay import patch


@patch(
    "verl.utils.tracking:FileLogger.log",
    why="the JSON encoder knows no tensors, and verl's correlation metric is one: the first training step fails; and "
    "what is written stays in the buffer, so that progress cannot be followed",
    upstream="verl==0.6.1",
    fingerprint="sha256:311844c14fc0d8fea5f322856c8d2a58ca31f20f4b44909141575cd4ade63ff3",
    remove_when="FileLogger converts its values and flushes",
)
def log(original: Callable[..., None], self: Any, data: dict[str, Any], step: int) -> None:
    # NPU-ADAPTATION: tensors and NumPy values become plain numbers, and the line is flushed
    original(self, {name: plain(value) for name, value in data.items()}, step)
    self.fp.flush()


def plain(value: Any) -> Any:
    """`value` with tensors, NumPy arrays and NumPy scalars as numbers or lists of numbers."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
    return value.tolist() if hasattr(value, "tolist") else value
