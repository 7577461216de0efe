# SPDX-License-Identifier: Apache-2.0
"""Probes of the operators that write and read paged key/value caches."""

import torch

from tests.npu_sim.limits.probes.tensors import Arguments, Inside, Outside, changed, counts, half, last, table, wide

_LATENT = "npu_kv_rmsnorm_rope_cache"
_LOAD = "atb.npu_paged_cache_load"
_TOKENS = {"key": (3, 1, 512), "value": (3, 1, 64), "key_cache": (4, 16, 1, 512), "value_cache": (4, 16, 1, 64)}
_KV = {
    "kv": (2, 1, 1, 576), "gamma": (512,), "cos": (2, 1, 1, 64), "sin": (2, 1, 1, 64), "k_cache": (4, 16, 1, 64),
    "ckv_cache": (4, 16, 1, 512),
}  # fmt: skip


def _latent() -> Arguments:
    return {**changed(_KV, half)(), "index": torch.tensor([3, -1], device="npu"), "cache_mode": "PA"}


def _load() -> Arguments:
    return {
        "key_cache": half(4, 16, 1, 512), "value_cache": half(4, 16, 1, 64), "block_table": table(2),
        "context_lens": counts(17, 3), "seq_starts": counts(0, 16),
    }  # fmt: skip


INSIDE: Inside = {
    "_npu_reshape_and_cache": lambda: {**changed(_TOKENS, half)(), "slot_indices": counts(0, 1, -1)},
    _LATENT: _latent,
    _LOAD: _load,
}

OUTSIDE: Outside = {
    (
        "_npu_reshape_and_cache", "key, value, key_cache, value_cache", "bfloat16, float16 or int8",
    ): changed(_TOKENS, wide),
    (
        _LATENT, "kv, gamma, cos, sin, k_cache, ckv_cache", "bfloat16 or float16 (caches: or int8)",
    ): changed(_KV, wide),
    (_LATENT, "kv", "a last dimension of 576"): last({"kv": _KV["kv"]}, 512),
    (_LATENT, "gamma, ckv_cache", "a last dimension of 512"): last(
        {"gamma": _KV["gamma"], "ckv_cache": _KV["ckv_cache"]}, 256
    ),
    (_LATENT, "cos, sin, k_cache", "a last dimension of 64"): last(
        {name: _KV[name] for name in ("cos", "sin", "k_cache")}, 32
    ),
    (_LATENT, "index", "each slot at most once"): lambda: {"index": torch.tensor([3, 3], device="npu")},
    (_LATENT, "k_cache", "a block for every block_size tokens of each batch row"): lambda: {
        "k_cache": half(1, 16, 1, 64), "ckv_cache": half(1, 16, 1, 512),
    },
    (_LATENT, "k_cache", "blocks of a multiple of 16 tokens with PA_NZ"): lambda: {
        "k_cache": half(4, 20, 1, 64), "ckv_cache": half(4, 20, 1, 512), "cache_mode": "PA_NZ",
    },
    (_LOAD, "key_cache, value_cache", "bfloat16, float16 or int8"): lambda: {
        "key_cache": wide(4, 16, 1, 512), "value_cache": wide(4, 16, 1, 64),
    },
    (_LOAD, "key_cache, value_cache", "a multiple of 16 numbers a token"): lambda: {
        "key_cache": half(4, 16, 1, 500), "value_cache": half(4, 16, 1, 60),
    },
    (_LOAD, "block_table", "a row for each of context_lens"): lambda: {"block_table": table(3)},
    (_LOAD, "seq_starts", "a start for each row of block_table"): lambda: {"seq_starts": counts(0)},
}  # fmt: skip
