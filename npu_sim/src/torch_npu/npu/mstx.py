# SPDX-License-Identifier: Apache-2.0
"""``torch_npu.npu.mstx``: marks and ranges in what ``torch_npu.profiler`` records, and nothing elsewhere."""

import functools
import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch.autograd.profiler import record_function

_numbers = itertools.count(1)
_open_ranges: dict[int, record_function] = {}


class mstx:
    """Streams and domains are taken and not looked at."""

    @staticmethod
    def mark(message: str, stream: Any = None, domain: str = "default") -> None:
        """A moment."""
        with record_function(message):
            pass

    @staticmethod
    def range_start(message: str, stream: Any = None, domain: str = "default") -> int:
        """The number of a range that begins now; 0 while nothing is recorded."""
        if not torch.autograd._profiler_enabled():
            return 0
        number = next(_numbers)
        _open_ranges[number] = record_function(message)
        _open_ranges[number].__enter__()
        return number

    @staticmethod
    def range_end(range_id: int, domain: str = "default") -> None:
        """End a range; numbers that name none are passed over."""
        if (range_ := _open_ranges.pop(range_id, None)) is not None:
            range_.__exit__(None, None, None)

    @staticmethod
    def mstx_range(message: str, stream: Any = None, domain: str = "default") -> Callable[[Callable], Callable]:
        """Decorator that makes a range of every call."""

        def decorate(function: Callable) -> Callable:
            @functools.wraps(function)
            def call(*args: Any, **kwargs: Any) -> Any:
                with record_function(message):
                    return function(*args, **kwargs)

            return call

        return decorate
