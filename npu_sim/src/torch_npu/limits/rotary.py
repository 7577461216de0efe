# SPDX-License-Identifier: Apache-2.0
"""Limits of the rotary position embeddings."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor
from torch_npu.limits import sources
from torch_npu.limits.conditions import (
    Condition,
    contiguous,
    half_types,
    shape_text,
    size,
    values,
)
from torch_npu.limits.fact import Arguments, CallLimit, Source
from torch_npu.limits.rows import limits_of

_LAYOUTS = {"BNSD": (0, 1), "BSND": (0, 2), "SBND": (1, 2)}
"""Layout -> the dimensions of batch and heads; positions are the third of the first three."""


def _possible(x: Tensor, cos: Tensor, interleaved: bool) -> Iterator[tuple[int, int]]:
    """Batch and heads in every layout of x in which an NPU takes this shape of cos."""
    own = [cos.shape[dimension] == size for dimension, size in enumerate(x.shape)]
    for batch, heads in _LAYOUTS.values():
        for_each_batch = own[batch] and x.shape[batch] > 1
        for_each_head = own[heads] and x.shape[heads] > 1
        whole = own[batch] and own[heads]
        taken = not (for_each_batch or for_each_head) if interleaved else not for_each_head or whole
        if own[3 - batch - heads] and taken:
            yield x.shape[batch], x.shape[heads]


def _shape_of_cos(x_name: str, interleaved: Any) -> Condition:
    def found(cos: Tensor, arguments: Arguments) -> str | None:
        x = arguments[x_name]
        if x.dim() != 4 or cos.dim() != 4 or any(_possible(x, cos, interleaved(arguments))):
            return None
        return f"{shape_text(cos)} for {x_name} {shape_text(x)}"

    return found


def _batch_and_heads(cos_name: str, interleaved: Any) -> Condition:
    def found(x: Tensor, arguments: Arguments) -> str | None:
        cos = arguments[cos_name]
        if x.dim() != 4 or cos.dim() != 4:
            return None
        mixed = interleaved(arguments)
        layouts = list(_possible(x, cos, mixed))
        if not layouts or any(b * n < 1000 if mixed else b < 1000 and n < 1000 for b, n in layouts):
            return None
        return shape_text(x)

    return found


def _gradients_of_cos(x_name: str) -> Condition:
    def found(cos: Tensor, arguments: Arguments) -> str | None:
        x = arguments[x_name]
        if not cos.requires_grad or x.dim() != 4 or cos.dim() != 4:
            return None
        layouts = list(_possible(x, cos, False))
        if not layouts or any(b * n <= 1024 for b, n in layouts):
            return None
        return f"in need of a gradient with {x_name} {shape_text(x)}"

    return found


def _rotation(operator: str, source: Source, x: str, cos: str, sin: str, interleaved: Any) -> tuple[CallLimit, ...]:
    """The rows that npu_rotary_mul and MindSpeed's rope share; ``interleaved`` reads the mode from the arguments."""
    row = limits_of(operator, source)
    return (
        row(x, "a last dimension below 896", size(-1, lambda size: size < 896)),
        row(x, "B, N < 1000 (interleaved: B * N < 1000)", _batch_and_heads(cos, interleaved)),
        row(
            f"{cos}, {sin}",
            "11SD, B1SD or BNSD where x is BNSD (interleaved: 11SD), alike for BSND and SBND",
            _shape_of_cos(x, interleaved),
        ),
        row(f"{cos}, {sin}", "values from -1 to 1", values(-1, 1)),
        row(f"{cos}, {sin}", "gradients only where B * N <= 1024", _gradients_of_cos(x)),
    )


_interleave = limits_of("npu_interleave_rope", sources.page("npu_interleave_rope"))
_cached = limits_of("_npu_rotary_embedding", sources.ATB_TABLE)
_cached_sizes = limits_of("_npu_rotary_embedding", sources.atb("rope"))
_apply = limits_of(
    "npu_apply_rotary_pos_emb", sources.cann("posembedding/apply_rotary_pos_emb/docs/aclnnApplyRotaryPosEmb.md")
)


def _multiple_of_key(query: Tensor, arguments: Arguments) -> str | None:
    key = arguments["key"]
    columns = key.shape[-1] if key.dim() else 0
    return None if columns and query.shape[-1] % columns == 0 else f"{shape_text(query)} with key {shape_text(key)}"


def _whole_heads(cache: Tensor, arguments: Arguments) -> str | None:
    return None if cache.shape[-1] == arguments["head_size"] else shape_text(cache)


LIMITS = (
    _interleave("x, cos, sin", "bfloat16 or float16", half_types, half_types_only=True),
    _interleave(
        "x, cos, sin",
        "a contiguous tensor",
        contiguous,
        contradiction="vLLM-Ascend 0.9.1 passes slices of the query and CANN's definition (AutoContiguous) copies them",
    ),
    _interleave("x, cos, sin", "a last dimension of 64", size(-1, (64,))),
    *_rotation(
        "npu_rotary_mul",
        sources.page("npu_rotary_mul"),
        "input",
        "r1",
        "r2",
        lambda arguments: arguments["rotary_mode"] == "interleave",
    ),
    *_rotation(
        "npu_rotary_position_embedding",
        sources.mindspeed("docs/ops/npu_rotary_position_embedding.md"),
        "x",
        "cos",
        "sin",
        lambda arguments: arguments["mode"] == 1,
    ),
    _apply("query, key, cos, sin", "a last dimension of 128", size(-1, (128,))),
    _cached("query, key, cos_sin_cache", "bfloat16 or float16", half_types, half_types_only=True),
    _cached_sizes("query", "a multiple of the columns of key", _multiple_of_key),
    _cached_sizes("cos_sin_cache", "head_size columns: each head is turned as a whole", _whole_heads),
)
