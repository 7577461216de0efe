# SPDX-License-Identifier: Apache-2.0
"""Probes of attention: training, latent attention (MLA), and the dense models."""

import torch
from torch import Tensor

from tests.npu_sim.limits.probes.tensors import (
    Arguments,
    Inside,
    Outside,
    changed,
    half,
    last,
    lengths,
    strided,
    table,
    wide,
)

_TRAIN = "npu_fusion_attention"
_FUSED = "npu_fused_infer_attention_score"
_RING = "atb.npu_ring_mla"
_LATENT = "atb.npu_multi_head_latent_attention"
_PAGED_LATENT = "_npu_paged_attention_mla"


def _triangle(size: int, *, flags: bool = False) -> Tensor:
    mask = torch.ones(size, size, device="npu").triu(1)
    return mask.bool() if flags else mask.bfloat16()


def _train() -> Arguments:  # a head of DeepSeek-V3: 128 + 64, value 128
    return {"query": half(4, 1, 192), "key": half(4, 1, 192), "value": half(4, 1, 128), "head_num": 1,
            "input_layout": "SBH"}  # fmt: skip


def _packed(requests: int) -> Arguments:
    ends = list(range(1, requests + 1))
    query = half(requests, 1, 8)
    return {"query": query, "key": query, "value": query, "input_layout": "TND", "actual_seq_qlen": ends,
            "actual_seq_kvlen": ends}  # fmt: skip


_FUSED_TENSORS = {"query": (2, 32, 1, 512), "key": (4, 1, 16, 512), "value": (4, 1, 16, 512),
                  "query_rope": (2, 32, 1, 64), "key_rope": (4, 1, 16, 64)}  # fmt: skip


def _fused() -> Arguments:
    return {**changed(_FUSED_TENSORS, half)(), "num_heads": 32, "num_key_value_heads": 1, "input_layout": "BNSD",
            "block_table": table(2), "block_size": 16, "actual_seq_lengths_kv": [3, 17]}  # fmt: skip


def _several(queries: int) -> Arguments:
    return {"query": half(2, 32, queries, 512), "query_rope": half(2, 32, queries, 64), "sparse_mode": 3,
            "atten_mask": _triangle(2048, flags=True)}  # fmt: skip


def _nz(block: int) -> Arguments:
    return {"query": half(2, 1, 32, 512), "query_rope": half(2, 1, 32, 64), "input_layout": "BSND",
            "key": half(4, 1, 32, block, 16), "value": half(4, 1, 32, block, 16), "key_rope": half(4, 1, 4, block, 16),
            "block_size": block}  # fmt: skip


_RING_TENSORS = {"q_nope": (5, 2, 128), "q_rope": (5, 2, 64), "k_nope": (5, 2, 128), "k_rope": (5, 2, 64),
                 "value": (5, 2, 128)}  # fmt: skip


def _ring() -> Arguments:
    return {**changed(_RING_TENSORS, half)(), "mask": _triangle(512), "seqlen": lengths(2, 3), "head_num": 2,
            "kv_head_num": 2, "mask_type": "mask_type_triu"}  # fmt: skip


_LATENT_TENSORS = {"q_nope": (2, 8, 512), "q_rope": (2, 8, 64), "ctkv": (4, 16, 1, 512), "k_rope": (4, 16, 1, 64)}


def _latent() -> Arguments:
    return {**changed(_LATENT_TENSORS, half)(), "block_tables": table(2), "context_lens": lengths(3, 17),
            "q_headnum": 8, "qk_scale": 0.5, "kv_headnum": 1}  # fmt: skip


def _requests(number: int) -> Tensor:
    return torch.zeros(number, dtype=torch.int32)


def _paged_latent() -> Arguments:
    return {"query": half(2, 16, 576), "key_cache": half(4, 256, 1, 576), "num_kv_heads": 1, "num_heads": 16,
            "scale_value": 0.5, "block_table": table(2), "context_lens": lengths(3, 17), "mla_vheadsize": 512,
            "out": half(2, 16, 512)}  # fmt: skip


_CACHES = {"key_cache": (4, 128, 1, 128), "value_cache": (4, 128, 1, 128)}
_HEADS = {"num_heads": 2, "num_kv_heads": 1, "scale_value": 0.5}


def _paged() -> Arguments:
    return {"query": half(2, 2, 128), **changed(_CACHES, half)(), **_HEADS, "block_table": table(2),
            "context_lens": lengths(3, 17), "out": half(2, 2, 128)}  # fmt: skip


def _split() -> Arguments:
    return {**_paged(), "mask": half(2, 256), "seq_len": lengths(1, 1)}


def _prefix() -> Arguments:
    return {**_paged(), "mask": _triangle(128), "seq_len": lengths(1, 1)}


def _prefill() -> Arguments:
    return {"query": half(5, 2, 128), "key": half(5, 1, 128), "value": half(5, 1, 128), **_HEADS,
            "mask": _triangle(8), "seq_len": lengths(2, 3), "out": half(5, 2, 128)}  # fmt: skip


INSIDE: Inside = {
    _TRAIN: _train,
    _FUSED: _fused,
    _RING: _ring,
    _LATENT: _latent,
    _PAGED_LATENT: _paged_latent,
    "_npu_paged_attention": _paged,
    "_npu_paged_attention_splitfuse": _split,
    "_npu_flash_attention": _prefill,
    "_npu_flash_attention_qlens": _prefix,
}

_HALF = "bfloat16 or float16"
_WHOLE = "a contiguous tensor"


def _dense(operator: str, tensors: dict[str, tuple[int, ...]], mask: tuple[int, ...] | None = None) -> Outside:
    queries = (5, 2, 128) if "key" in tensors else (2, 2, 128)
    named = {"query": queries, **tensors}
    rows: Outside = {
        (operator, ", ".join(named), _HALF): changed(named, wide),
        (operator, "out", _WHOLE): lambda: {"out": strided(*queries)},
    }
    if mask:
        rows[operator, "mask", "the dtype of query"] = lambda: {"mask": wide(*mask)}
    return rows


_BIG = "a last dimension of at most 576"

OUTSIDE: Outside = {
    (_TRAIN, "query", "a head size of 1 to 768"): lambda: {
        "query": half(4, 1, 769), "key": half(4, 1, 769), "value": half(4, 1, 769),
    },
    (_TRAIN, "query", "1 to 2097152 batch rows, or 1 to 2048 packed requests"): lambda: _packed(2049),
    (_TRAIN, "query, key", "1 to 1048576 positions"): lambda: {
        "query": half((1 << 20) + 1, 1, 1), "key": half((1 << 20) + 1, 1, 1),
    },
    (_TRAIN, "head_num", "1 to 256"): lambda: {"head_num": 257, "query": half(4, 1, 257)},
    (_TRAIN, "value", "a head size of at most that of key"): lambda: {"value": half(4, 1, 200)},
    (_TRAIN, "atten_mask", "[2048, 2048] with sparse_mode 2, 3 or 4"): lambda: {
        "atten_mask": _triangle(4, flags=True), "sparse_mode": 3,
    },
    (_FUSED, "query, key, value, query_rope, key_rope", _HALF): changed(_FUSED_TENSORS, wide),
    (_FUSED, "query, key", "a latent of 512 with query_rope"): last(
        {name: _FUSED_TENSORS[name] for name in ("query", "key")}, 256
    ),
    (_FUSED, "query_rope, key_rope", "a last dimension of 64"): last(
        {name: _FUSED_TENSORS[name] for name in ("query_rope", "key_rope")}, 32
    ),
    (_FUSED, "num_heads", "32, 64 or 128 with a latent of 512"): lambda: {"num_heads": 16},
    (_FUSED, "query", "1 to 16 queries for a request"): lambda: _several(17),
    (_FUSED, "query", "at most 1048576 packed queries"): lambda: {
        "query": half(1, 1, 512).expand((1 << 20) + 1, 1, 512), "input_layout": "TND", "actual_seq_lengths": [1, 2],
    },
    (_FUSED, "query, query_rope", _WHOLE): lambda: {
        "query": half(32, 2, 1, 512).transpose(0, 1), "query_rope": half(32, 2, 1, 64).transpose(0, 1),
    },
    (_FUSED, "sparse_mode", "3, with the mask, for several queries"): lambda: {
        **_several(2), "sparse_mode": 0, "atten_mask": None,
    },
    (_FUSED, "inner_precise", "0 or 1 for one query, 0 to 3 for several"): lambda: {"inner_precise": 2},
    (_FUSED, "key, value", "a paged cache of at most 2147483647 elements: int32 counts them"): lambda: {
        name: half(1, 1, 16, 512).expand(2**18, 1, 16, 512) for name in ("key", "value")
    },
    (_FUSED, "block_size", "16 or 128 (in NZ: 128)"): lambda: _nz(16),
    (_FUSED, "input_layout", "BSND or TND over an NZ cache"): lambda: {
        **_nz(128), "input_layout": "BNSD", "query": half(2, 32, 1, 512), "query_rope": half(2, 32, 1, 64),
    },
    (_RING, "q_nope, q_rope, k_nope, k_rope, value", _HALF): changed(_RING_TENSORS, wide),
    (_RING, "q_nope, k_nope, value", "a last dimension of 128"): last(
        {name: _RING_TENSORS[name] for name in ("q_nope", "k_nope", "value")}, 64
    ),
    (_RING, "q_rope, k_rope", "a last dimension of 64"): last(
        {name: _RING_TENSORS[name] for name in ("q_rope", "k_rope")}, 32
    ),
    (_RING, "mask", "the dtype of q_nope"): lambda: {"mask": wide(512, 512)},
    (_RING, "mask", "[512, 512], [128, 128] or [longest query, longest key]"): lambda: {"mask": half(64, 64)},
    (_RING, "seqlen", "as many keys as queries, or none, under a triangle"): lambda: {
        "seqlen": torch.stack([lengths(2, 3), lengths(0, 2)])
    },
    (_LATENT, "q_nope, q_rope, ctkv, k_rope", _HALF): changed(_LATENT_TENSORS, wide),
    (_LATENT, "q_nope, ctkv", "a last dimension of 512"): last(
        {name: _LATENT_TENSORS[name] for name in ("q_nope", "ctkv")}, 256
    ),
    (_LATENT, "q_rope, k_rope", "a last dimension of 64"): last(
        {name: _LATENT_TENSORS[name] for name in ("q_rope", "k_rope")}, 32
    ),
    (_LATENT, "q_headnum", "8, 16, 32, 64 or 128"): lambda: {"q_headnum": 4},
    (_LATENT, "ctkv", "blocks of at most 128"): lambda: {"ctkv": half(4, 144, 1, 512)},
    (_LATENT, "qk_scale", "above 0, at most 1"): lambda: {"qk_scale": 1.5},
    (_LATENT, "block_tables", "a row for each of context_lens"): lambda: {"block_tables": table(3)},
    (_LATENT, "context_lens", "at most 8192 requests"): lambda: {
        "context_lens": _requests(8193), "block_tables": table(8193),
    },
    (_PAGED_LATENT, "query, key_cache", _HALF): lambda: {
        "query": wide(2, 16, 576), "key_cache": wide(4, 256, 1, 576),
    },
    (_PAGED_LATENT, "key_cache", _BIG): lambda: {"key_cache": half(4, 16, 1, 640)},
    (
        _PAGED_LATENT, "key_cache", "blocks of at most 128; with 16 or 32 heads and a size of 576 (512) also of 256",
    ): lambda: {"key_cache": half(4, 256, 1, 576), "num_heads": 8},
    (_PAGED_LATENT, "context_lens", "at most 8192 requests"): lambda: {"context_lens": _requests(8193)},
    (_PAGED_LATENT, "out", _WHOLE): lambda: {"out": strided(2, 16, 512)},
    **_dense("_npu_paged_attention", _CACHES),
    ("_npu_paged_attention", "key_cache, value_cache", _BIG): last(_CACHES, 640),
    ("_npu_paged_attention", "key_cache, value_cache", "blocks of at most 128 with heads above 256"): lambda: {
        "key_cache": half(1, 144, 1, 272), "value_cache": half(1, 144, 1, 272),
    },
    **_dense("_npu_paged_attention_splitfuse", _CACHES, (2, 256)),
    (
        "_npu_paged_attention_splitfuse", "key_cache, value_cache",
        "heads of at most 256, blocks of at most 128 * 128 numbers a head",
    ): last(_CACHES, 192),
    **_dense("_npu_flash_attention", {"key": (5, 1, 128), "value": (5, 1, 128)}, (8, 8)),
    ("_npu_flash_attention", "key, value", _BIG): last({"key": (5, 1, 128), "value": (5, 1, 128)}, 640),
    **_dense("_npu_flash_attention_qlens", _CACHES, (128, 128)),
    ("_npu_flash_attention_qlens", "key_cache, value_cache", _BIG): last(_CACHES, 640),
    ("_npu_flash_attention_qlens", "mask", "[128, 128]"): lambda: {"mask": half(64, 64)},
}  # fmt: skip
