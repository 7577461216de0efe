# SPDX-License-Identifier: Apache-2.0
"""Limits of the rotary position embeddings."""

from torch_npu.limits import conditions, sources
from torch_npu.limits.fact import CallLimit

_INTERLEAVE = sources.page("npu_interleave_rope")

LIMITS = (
    *(
        limit
        for argument in ("x", "cos", "sin")
        for limit in (
            CallLimit(
                "npu_interleave_rope",
                argument,
                "bfloat16 or float16",
                _INTERLEAVE,
                conditions.dtype_in(argument, conditions.HALF_TYPES),
                half_types_only=True,
            ),
            CallLimit(
                "npu_interleave_rope",
                argument,
                "a contiguous tensor",
                _INTERLEAVE,
                conditions.contiguous(argument),
            ),
            CallLimit(
                "npu_interleave_rope",
                argument,
                "a last dimension of 64",
                _INTERLEAVE,
                conditions.size(argument, -1, lambda size: size == 64),
            ),
        )
    ),
)
