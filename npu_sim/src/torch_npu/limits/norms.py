# SPDX-License-Identifier: Apache-2.0
"""Limits of norms, activations, the masked softmax and the sampling filter."""

from torch_npu.limits import sources
from torch_npu.limits.conditions import contiguous, not_empty, rank, size, value, values
from torch_npu.limits.rows import limits_of

_rms_norm = limits_of("npu_rms_norm", sources.page("npu_rms_norm", beta=True))
_swiglu = limits_of("npu_swiglu", sources.page("npu_swiglu", beta=True))
_gelu = limits_of("npu_fast_gelu", sources.page("npu_fast_gelu"))
_softmax = limits_of("npu_scaled_masked_softmax", sources.page("npu_scaled_masked_softmax"))
_filter = limits_of("npu_top_k_top_p", sources.page("npu_top_k_top_p"))


def _of_whole_tiles(size: int) -> bool:
    return 32 <= size <= 4096 and size % 32 == 0


LIMITS = (
    _rms_norm("x", "2 to 8 dimensions", rank(2, 8)),
    _swiglu("self", "a contiguous tensor", contiguous),
    _swiglu(
        "self",
        "a tensor that is not empty",
        not_empty,
        contradiction="a die whose experts get no token passes it in vLLM-Ascend 0.9.1 and MindSpeed, and the page of "
        "aclnnSwiGlu in CANN 8.5 takes it",
    ),
    _swiglu("self", "1 to 8 dimensions", rank(1, 8)),
    _gelu("self", "at most 8 dimensions", rank(0, 8)),
    _softmax("x", "32 to 4096 rows, a multiple of 32", size(-2, _of_whole_tiles)),
    _softmax("x", "32 to 4096 columns, a multiple of 32", size(-1, _of_whole_tiles)),
    _softmax("fixed_triu_mask", "False", value((False,))),
    _filter("p", "values from 0 to 1", values(0, 1)),
    _filter(
        "k",
        "values from 1 to 1024",
        values(1, 1024),
        contradiction="vLLM 0.9.1 gives a request without top-k the size of the vocabulary",
    ),
)
