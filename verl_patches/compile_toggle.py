# SPDX-License-Identifier: Apache-2.0
"""The real `torch.compile` and `torch.jit.script` for the rollout, the training side's replacements for training.

MindSpeed replaces both by functions that return their argument, at import and again at every `repatch`. Training wants
that; vLLM-Ascend's graph mode does not, because it would run eagerly without a word. `true_compile` puts the real
functions in place for the duration of a rollout call and then restores exactly what was there before.
"""

# NPU-ADAPTATION: the rollout compiles although MindSpeed has turned torch.compile off

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

_TARGETS: tuple[tuple[str, Any, str], ...] = (
    ("torch.compile", torch, "compile"),
    ("torch.jit.script", torch.jit, "script"),
)


def _is_real(function: Any) -> bool:
    """Whether a function is not MindSpeed's; torch_npu's wrapper of PyTorch's own counts as real."""
    return not str(getattr(function, "__module__", "")).startswith("mindspeed")


def _find_real(path: str, current: Any) -> Callable[..., Any]:
    """The function to use in place of `current`, which may be it."""
    real = current if _is_real(current) else _original_kept_by_mindspeed(path)
    if real is None:
        raise RuntimeError(
            f"{path} is {current.__module__}.{current.__name__}, and MindSpeed's patch manager does not hold the "
            "original of it: this is another MindSpeed than the pinned one, see upstreams.toml"
        )
    return real


def _original_kept_by_mindspeed(path: str) -> Callable[..., Any] | None:
    manager = sys.modules.get("mindspeed.patch_utils")
    patches = getattr(getattr(manager, "MindSpeedPatchesManager", None), "patches_info", {})
    original = getattr(patches.get(path), "orig_func", None)
    return original if callable(original) and _is_real(original) else None


@contextmanager
def true_compile() -> Iterator[None]:
    """Within the block `torch.compile` and `torch.jit.script` are the real ones; afterwards, what they were before.

    Nothing is touched where they have not been replaced. Blocks nest. When something else replaces one of them inside
    the block (MindSpeed's `repatch`), that newer value is left in place.
    """
    swapped: list[tuple[Any, str, Any, Any]] = []
    try:
        for path, holder, name in _TARGETS:
            current = getattr(holder, name)
            real = _find_real(path, current)
            if current is not real:
                setattr(holder, name, real)
                swapped.append((holder, name, current, real))
        yield
    finally:
        for holder, name, current, real in reversed(swapped):
            if getattr(holder, name) is real:
                setattr(holder, name, current)
