# SPDX-License-Identifier: Apache-2.0
"""Cached compilation: the function itself, since nothing is compiled."""

from collections.abc import Callable
from typing import Any

from .configs import CompilerConfig


def cache_compile(
    func: Callable,
    *,
    config: CompilerConfig | None = None,
    dynamic: bool = True,
    cache_dir: str | None = None,
    global_rank: int | None = None,
    tp_rank: int | None = None,
    pp_rank: int | None = None,
    fullgraph: bool = True,
    ge_cache: bool = False,
    **custom: Any,
) -> Callable:
    """The function itself; nothing is written to ``cache_dir``."""
    if custom:
        raise NotImplementedError(
            f"torchair.inference.cache_compile (simulated): options {sorted(custom)} are not simulated"
        )
    if config is not None and not isinstance(config, CompilerConfig):
        raise TypeError(f"torchair.inference.cache_compile: config is {type(config).__name__}, expected CompilerConfig")
    return func


def set_dim_gears(tensor: Any, dim_gears: dict) -> None:
    """Graph shape classes of a tensor; without graphs there is nothing to choose."""
