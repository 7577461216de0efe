# SPDX-License-Identifier: Apache-2.0
"""Graph building blocks; the types exist for annotations, the functions raise."""

from typing import Any, NoReturn

from ..ge import DataType, Tensor, TensorSpec


def _no_graph(name: str) -> NoReturn:
    raise NotImplementedError(
        f"torchair.ge_concrete_graph.ge_graph.{name}: graphs are not simulated, models run eagerly"
    )


def get_default_ge_graph() -> Any:
    _no_graph("get_default_ge_graph")


def next_unique_name(*args: Any) -> Any:
    _no_graph("next_unique_name")


def compat_as_bytes(*args: Any) -> Any:
    _no_graph("compat_as_bytes")


def get_invalid_desc() -> Any:
    _no_graph("get_invalid_desc")


__all__ = [
    "DataType",
    "Tensor",
    "TensorSpec",
    "compat_as_bytes",
    "get_default_ge_graph",
    "get_invalid_desc",
    "next_unique_name",
]
