# SPDX-License-Identifier: Apache-2.0
"""What HCCL does not reduce. Collectives that only move data take every dtype."""

import torch
from torch_npu.limits import sources
from torch_npu.limits.fact import CollectiveTypes

_REDUCING = ("allreduce", "reduce", "reduce_scatter", "_reduce_scatter_base")
_TAKEN = ("int8", "int16", "int32", "int64", "float16", "bfloat16", "float32")
_REFUSED = frozenset(value for value in vars(torch).values() if isinstance(value, torch.dtype)) - {
    getattr(torch, name) for name in _TAKEN
}

LIMITS = (
    *(CollectiveTypes(f"hccl {name}", "tensor", ", ".join(_TAKEN), sources.HCCL, _REFUSED) for name in _REDUCING),
    *(
        CollectiveTypes(
            f"hccl {name}",
            "op",
            "SUM, AVG, PRODUCT, MIN and MAX",
            sources.HCCL,
            frozenset(),
            ("BAND", "BOR", "BXOR", "PREMUL_SUM"),
        )
        for name in _REDUCING
    ),
)
