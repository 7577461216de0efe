# SPDX-License-Identifier: Apache-2.0
"""Probes of the rotary position embeddings."""

import torch

from tests.npu_sim.limits.probes.tensors import Inside, Outside, changed, half, last, strided, wide

INTERLEAVE = {"x": (2, 4, 1, 64), "cos": (2, 1, 1, 64), "sin": (2, 1, 1, 64)}
APPLY = {"query": (1, 3, 2, 128), "key": (1, 3, 1, 128), "cos": (1, 3, 1, 128), "sin": (1, 3, 1, 128)}
CACHED = {"query": (3, 128), "key": (3, 64), "cos_sin_cache": (8, 64)}


def _rotation(operator: str, x: str, cos: str, sin: str, interleaved: dict) -> tuple[Inside, Outside]:
    def row(argument: str, documented: str) -> tuple[str, str, str]:
        return operator, argument, documented

    both = f"{cos}, {sin}"
    inside = {operator: lambda: {x: half(2, 3, 4, 64), cos: half(1, 3, 1, 64), sin: half(1, 3, 1, 64)}}
    outside: Outside = {
        row(x, "a last dimension below 896"): lambda: {x: half(2, 3, 4, 896)},
        row(x, "B, N < 1000 (interleaved: B * N < 1000)"): lambda: {
            x: half(100, 3, 10, 64),
            cos: half(1, 3, 1, 64),
            **interleaved,
        },
        row(both, "11SD, B1SD or BNSD where x is BNSD (interleaved: 11SD), alike for BSND and SBND"): lambda: {
            cos: half(2, 3, 1, 64),
            sin: half(2, 3, 1, 64),
            **interleaved,
        },
        row(both, "values from -1 to 1"): lambda: {cos: 2 * half(1, 3, 1, 64), sin: -2 * half(1, 3, 1, 64)},
        row(both, "gradients only where B * N <= 1024"): lambda: {
            cos: half(1, 3, 1, 64).requires_grad_(),
            sin: half(1, 3, 1, 64).requires_grad_(),
            x: half(100, 3, 11, 64),
        },
    }
    return inside, outside


_MUL = _rotation("npu_rotary_mul", "input", "r1", "r2", {"rotary_mode": "interleave"})
_EMBEDDING = _rotation("npu_rotary_position_embedding", "x", "cos", "sin", {"mode": 1})

INSIDE: Inside = {
    **_MUL[0],
    **_EMBEDDING[0],
    "npu_interleave_rope": changed(INTERLEAVE, half),
    "npu_apply_rotary_pos_emb": changed(APPLY, half),
    "_npu_rotary_embedding": lambda: {
        **changed(CACHED, half)(),
        "positions": torch.arange(3, device="npu"),
        "head_size": 64,
        "is_neox_style": True,
    },
}

OUTSIDE: Outside = {
    **_MUL[1],
    **_EMBEDDING[1],
    ("npu_interleave_rope", "x, cos, sin", "bfloat16 or float16"): changed(INTERLEAVE, wide),
    ("npu_interleave_rope", "x, cos, sin", "a contiguous tensor"): changed(INTERLEAVE, strided),
    ("npu_interleave_rope", "x, cos, sin", "a last dimension of 64"): last(INTERLEAVE, 32),
    ("npu_apply_rotary_pos_emb", "query, key, cos, sin", "a last dimension of 128"): last(APPLY, 64),
    ("_npu_rotary_embedding", "query, key", "bfloat16 or float16"): lambda: {"query": wide(3, 128), "key": wide(3, 64)},
    ("_npu_rotary_embedding", "cos_sin_cache", "the dtype of query; or float32 with float16"): lambda: {
        "cos_sin_cache": wide(8, 64)
    },
    ("_npu_rotary_embedding", "query", "a multiple of the columns of key"): lambda: {"query": half(3, 96)},
    ("_npu_rotary_embedding", "cos_sin_cache", "head_size columns: each head is turned as a whole"): lambda: {
        "cos_sin_cache": half(8, 32)
    },
}
