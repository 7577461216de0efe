# SPDX-License-Identifier: Apache-2.0
"""How the kernels are compiled: for one signature, at import, kept on disk where that can be; the GIL is let go."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit


def compiled(signature: str) -> Callable[[Callable[..., Any]], Any]:
    """A decorator. The code goes to __pycache__ beside the source, or to the user's cache directory.

    Where both are read-only, which numba takes for an error, each process compiles anew: one second.
    """

    def compile_it(function: Callable[..., Any]) -> Any:
        try:
            return njit(signature, nogil=True, error_model="numpy", cache=True)(function)
        except RuntimeError as error:
            if "cannot cache function" not in str(error):
                raise
            return njit(signature, nogil=True, error_model="numpy")(function)

    return compile_it
