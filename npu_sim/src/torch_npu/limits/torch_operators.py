# SPDX-License-Identifier: Apache-2.0
"""Dtypes that torch's own operators do not take on an NPU: matrix products and convolutions.

torch_npu's list of functions has more that name no float64 or no complex numbers, reductions above all. They have no
row: CANN's pages of the operators beneath take float64 in maxima and complex numbers in sums, so that the list is not
complete.
"""

from collections.abc import Iterator

import torch
from torch_npu.limits import sources
from torch_npu.limits.fact import OperatorTypes, Source

_TAKEN = ("bfloat16", "float16", "float32")
_REFUSED = frozenset(value for value in vars(torch).values() if isinstance(value, torch.dtype)) - {
    getattr(torch, name) for name in _TAKEN
}


def _limits(names: str, source: Source) -> Iterator[OperatorTypes]:
    for name in names.split():
        yield OperatorTypes(f"aten::{name}", "every tensor", ", ".join(_TAKEN), source, _REFUSED)


LIMITS = (
    *_limits("mm", sources.CANN_MM),
    *_limits("bmm addmm baddbmm", sources.TORCH_FUNCTIONS),
    *_limits("convolution convolution_backward", sources.NN_FUNCTIONS),
)
