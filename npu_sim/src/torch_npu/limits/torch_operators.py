# SPDX-License-Identifier: Apache-2.0
"""Dtypes that torch's own operators do not take on an NPU: matrix products and convolutions.

torch_npu's list of functions has more that name no float64 or no complex numbers, reductions above all. They have no
row: CANN's pages of the operators beneath take float64 in maxima and complex numbers in sums, so that the list is not
complete.
"""

from collections.abc import Iterator

from torch_npu.limits import sources
from torch_npu.limits.fact import OperatorTypes, Source, every_dtype_but

_TAKEN = "bfloat16, float16, float32"


def _limits(names: str, source: Source) -> Iterator[OperatorTypes]:
    for name in names.split():
        yield OperatorTypes(f"aten::{name}", "every tensor", _TAKEN, source, every_dtype_but(_TAKEN))


LIMITS = (
    *_limits("mm", sources.CANN_MM),
    *_limits("bmm addmm baddbmm", sources.TORCH_FUNCTIONS),
    *_limits("convolution convolution_backward", sources.NN_FUNCTIONS),
)
