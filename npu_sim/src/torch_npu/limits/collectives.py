# SPDX-License-Identifier: Apache-2.0
"""What HCCL does not move or reduce.

Complex numbers reach it only in collectives that torch.distributed does not take apart into real ones beforehand.
"""

from collections.abc import Iterator

from torch_npu.limits import sources
from torch_npu.limits.fact import CollectiveTypes, Source, every_dtype_but

_SUMMED = "int8, int16, int32, int64, float16, bfloat16, float32"
# torch_npu sums these two as int32, where it sums in place.
_SUMMED_IN_PLACE = f"{_SUMMED}, bool, uint8"
_MOVED = f"{_SUMMED_IN_PLACE}, float64"
_SCATTERED = ("reduce_scatter", "_reduce_scatter_base")
_IN_PLACE = ("allreduce", "reduce")
_MOVING = ("broadcast", "allgather", "_allgather_base", "scatter", "alltoall_base", "alltoall", "send", "recv")


def _types(collectives: tuple[str, ...], taken: str, source: Source) -> Iterator[CollectiveTypes]:
    for name in collectives:
        yield CollectiveTypes(f"hccl {name}", "tensor", taken, source, every_dtype_but(taken))


LIMITS = (
    *_types(_SCATTERED, _SUMMED, sources.HCCL),
    *_types(_IN_PLACE, _SUMMED_IN_PLACE, sources.HCCL),
    *_types(_MOVING, _MOVED, sources.torch_npu("distributed/HCCLUtils.cpp")),
    *(
        CollectiveTypes(
            f"hccl {name}",
            "op",
            "SUM, AVG, PRODUCT, MIN and MAX",
            sources.HCCL,
            frozenset(),
            ("BAND", "BOR", "BXOR", "PREMUL_SUM"),
        )
        for name in (*_SCATTERED, *_IN_PLACE)
    ),
)
