# SPDX-License-Identifier: Apache-2.0
"""Registration of lowerings."""

from collections.abc import Callable
from typing import Any

from .._backend import register_fx_node_ge_converter


def declare_supported(supports: Any) -> Callable[[Callable], Callable]:
    """Decorator that would record test cases of a lowering."""
    return lambda function: function


__all__ = ["declare_supported", "register_fx_node_ge_converter"]
