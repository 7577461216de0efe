# SPDX-License-Identifier: Apache-2.0
"""Stream and kernel scopes of graph mode. Execution is in order here, so they only keep their place."""

import contextlib
from typing import Any, TypeVar

T = TypeVar("T")


def npu_stream_switch(stream_tag: str, stream_priority: int = 0) -> contextlib.AbstractContextManager[None]:
    """Run the block on a named secondary stream."""
    if not isinstance(stream_tag, str):
        raise TypeError(f"torchair.scope.npu_stream_switch: stream_tag is {stream_tag!r}, expected a string")
    return contextlib.nullcontext()


def npu_wait_tensor(self: T, dependency: Any) -> T:
    """``self``, after ``dependency`` is ready."""
    return self


def super_kernel(scope: str, options: str = "") -> contextlib.AbstractContextManager[None]:
    """Fuse the block's kernels into one."""
    if not isinstance(scope, str):
        raise TypeError(f"torchair.scope.super_kernel: scope is {scope!r}, expected a string")
    return contextlib.nullcontext()


def limit_core_num(op_aicore_num: int, op_vectorcore_num: int) -> contextlib.AbstractContextManager[None]:
    """Limit the cores that the block's kernels use."""
    return contextlib.nullcontext()
