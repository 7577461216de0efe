# SPDX-License-Identifier: Apache-2.0
"""A kernel compiled by LLVM, or none, with a line that says so, where llvmlite is missing or fails on this machine."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TypeVar

Kernel = TypeVar("Kernel")


def compiled(compile_kernel: Callable[[], Kernel], instead: str) -> Kernel | None:
    """What `compile_kernel` gives; None, after one line on stderr with the reason, where llvmlite fails.

    instead: what is used in its place, and what that costs, for the message. Other errors than those of llvmlite are
    not caught: ImportError (it is not installed, or the processor lacks something), OSError (its shared library does
    not load), RuntimeError (LLVM does not know the processor, or refuses the code).
    """
    try:
        return compile_kernel()
    except (ImportError, OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        line = f"warning: no kernel from llvmlite ({type(error).__name__}: {reason}): {instead}"
        print(line, file=sys.stderr, flush=True)
        return None
