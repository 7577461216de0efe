# SPDX-License-Identifier: Apache-2.0
"""Limits of the operators that write and read paged key/value caches."""

from typing import Any

import torch
from torch import Tensor
from torch_npu.limits import sources
from torch_npu.limits.conditions import dtype_in, half_types, shape_text, size
from torch_npu.limits.fact import Arguments
from torch_npu.limits.rows import limits_of

_write = limits_of("_npu_reshape_and_cache", sources.ATB_TABLE)
_latent = limits_of("npu_kv_rmsnorm_rope_cache", sources.page("npu_kv_rmsnorm_rope_cache"))
_latent_expected = limits_of("npu_kv_rmsnorm_rope_cache", None)
_load = limits_of("atb.npu_paged_cache_load", sources.atb("paged_cache_load"))
_load_types = limits_of("atb.npu_paged_cache_load", sources.ATB_TABLE)

_half_or_int8 = dtype_in(torch.bfloat16, torch.float16, torch.int8)


def _each_once(index: Tensor, _: Arguments) -> str | None:
    used = index[index >= 0]
    return "with a slot twice" if used.unique().numel() < used.numel() else None


def _room(cache: Tensor, arguments: Arguments) -> str | None:
    if arguments["cache_mode"] == "Norm":
        return None
    batch, length, block = arguments["kv"].shape[0], arguments["kv"].shape[2], cache.shape[1]
    needed = batch * -(-length // block)
    return f"of {cache.shape[0]} blocks for {needed}" if cache.shape[0] < needed else None


def _nz_blocks(cache: Tensor, arguments: Arguments) -> str | None:
    return shape_text(cache) if arguments["cache_mode"] == "PA_NZ" and cache.shape[1] % 16 else None


def _aligned(cache: Tensor, _: Arguments) -> str | None:
    return None if cache.dim() == 4 and cache.shape[2] * cache.shape[3] % 16 == 0 else shape_text(cache)


def _row_for_each(table: Tensor, arguments: Arguments) -> str | None:
    requests = arguments["context_lens"].numel() - bool(arguments["cumsum"])
    return None if table.shape[0] == requests else f"{shape_text(table)} for {requests} requests"


def _length_for_each(starts: Any, arguments: Arguments) -> str | None:
    rows = arguments["block_table"].shape[0]
    return None if starts.numel() == rows else f"{shape_text(starts)} for {rows} rows of block_table"


LIMITS = (
    _write("key, value, key_cache, value_cache", "bfloat16, float16 or int8", _half_or_int8, half_types_only=True),
    _latent(
        "kv, gamma, cos, sin, k_cache, ckv_cache", "bfloat16 or float16 (caches: or int8)", half_types,
        half_types_only=True,
    ),
    _latent("kv", "a last dimension of 576", size(-1, (576,))),
    _latent("gamma, ckv_cache", "a last dimension of 512", size(-1, (512,))),
    _latent("cos, sin, k_cache", "a last dimension of 64", size(-1, (64,))),
    _latent("index", "each slot at most once", _each_once),
    _latent(
        "k_cache",
        "a block for every block_size tokens of each batch row",
        _room,
        contradiction="vLLM-Ascend 0.9.1 passes each token as a batch row of its own",
    ),
    _latent_expected("k_cache", "blocks of a multiple of 16 tokens with PA_NZ", _nz_blocks),
    _load_types("key_cache, value_cache", "bfloat16, float16 or int8", _half_or_int8, half_types_only=True),
    _load("key_cache, value_cache", "a multiple of 16 numbers a token", _aligned),
    _load("block_table", "a row for each of context_lens", _row_for_each),
    _load("seq_starts", "a start for each row of block_table", _length_for_each),
)  # fmt: skip
