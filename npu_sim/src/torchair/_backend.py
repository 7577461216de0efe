# SPDX-License-Identifier: Apache-2.0
"""The compile backend that runs eagerly, and the entry points around it."""

import functools
from collections.abc import Callable
from typing import Any

import torch

from .configs import CompilerConfig


class EagerBackend:
    """A ``torch.compile`` backend; :func:`install` makes torch.compile return the model itself for it."""

    def __init__(self, config: CompilerConfig) -> None:
        self.config = config

    def __call__(self, graph: Any, example_inputs: Any) -> Callable:
        return graph.forward


def get_npu_backend(
    *, compiler_config: CompilerConfig | None = None, custom_decompositions: dict | None = None
) -> EagerBackend:
    """The backend for ``torch.compile(model, backend=...)``."""
    config = CompilerConfig() if compiler_config is None else compiler_config
    if not isinstance(config, CompilerConfig):
        raise TypeError(
            f"torchair.get_npu_backend: compiler_config is {type(config).__name__}, expected CompilerConfig"
        )
    if custom_decompositions:
        raise NotImplementedError("torchair.get_npu_backend (simulated): custom_decompositions are not simulated")
    return EagerBackend(config)


def get_compiler(compiler_config: CompilerConfig | None = None) -> EagerBackend:
    """Alias of :func:`get_npu_backend` with a positional configuration."""
    return get_npu_backend(compiler_config=compiler_config)


def patch_for_hcom() -> None:
    """Collectives run as they are outside a graph; nothing to patch."""


def register_fx_node_ge_converter(target: Any) -> Callable[[Callable], Callable]:
    """Decorator that would register a graph lowering; there is no graph, so the function stays as it is."""
    return lambda function: function


def install() -> None:
    """Make ``torch.compile`` return its model when the backend is ours (once)."""
    real = torch.compile
    if getattr(real, "npu_sim", False):
        return

    @functools.wraps(real)
    def compile(model: Callable | None = None, **kwargs: Any) -> Any:
        if not isinstance(kwargs.get("backend"), EagerBackend):
            return real(model, **kwargs)
        return (lambda function: function) if model is None else model

    compile.npu_sim = True  # type: ignore[attr-defined]  # marks our wrapper
    torch.compile = compile
