# SPDX-License-Identifier: Apache-2.0
"""Limits of attention: training, inference of latent attention (MLA), and inference of the dense models."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch_npu.limits import sources
from torch_npu.limits.conditions import (
    contiguous,
    dtype_of,
    half_types,
    shape_text,
    size,
    value,
)
from torch_npu.limits.fact import Arguments, CallLimit
from torch_npu.limits.rows import limits_of

# Training.

_train = limits_of("npu_fusion_attention", sources.page("npu_fusion_attention"))

_MILLION = 1 << 20
_MOST_INDEXED = (1 << 31) - 1


def _sizes(name: str, arguments: Arguments) -> tuple[int, int, int]:
    """Batch (requests, where packed), positions (all of them, where packed) and head size of a tensor."""
    tensor, layout = arguments[name], arguments["input_layout"]
    if layout == "TND":
        ends = arguments["actual_seq_qlen" if name == "query" else "actual_seq_kvlen"] or ()
        return len(ends), tensor.shape[0], tensor.shape[-1]
    batch = tensor.shape[1 if layout == "SBH" else 0]
    positions = tensor.shape[{"SBH": 0, "BSH": 1, "BSND": 1, "BNSD": 2}[layout]]
    if layout in ("SBH", "BSH"):  # the head size is that of query, for key and value may have fewer heads
        return batch, positions, arguments["query"].shape[-1] // max(arguments["head_num"], 1)
    return batch, positions, tensor.shape[-1]


def _head_size(tensor: Tensor, arguments: Arguments) -> str | None:
    found = _sizes("query", arguments)[2]
    return None if 1 <= found <= 768 else f"of head size {found}"


def _batch(tensor: Tensor, arguments: Arguments) -> str | None:
    found = _sizes("query", arguments)[0]
    most = 2048 if arguments["input_layout"] == "TND" else 2 * _MILLION
    return None if 1 <= found <= most else f"of a batch of {found}"


def _positions(tensor: Tensor, arguments: Arguments) -> str | None:
    name = "query" if tensor is arguments["query"] else "key"
    found = _sizes(name, arguments)[1]
    return None if 1 <= found <= _MILLION else f"of {found} positions"


def _no_wider(value: Tensor, arguments: Arguments) -> str | None:
    # With heads side by side both have as many, so that the last dimensions compare as the head sizes do.
    return shape_text(value) if value.shape[-1] > arguments["key"].shape[-1] else None


def _template(mask: Tensor, arguments: Arguments) -> str | None:
    compressed = arguments["sparse_mode"] in (2, 3, 4)
    return shape_text(mask) if compressed and list(mask.shape) != [2048, 2048] else None


# Latent attention in graph mode.

_fused = limits_of("npu_fused_infer_attention_score", sources.page("npu_fused_infer_attention_score"))


def _queries(arguments: Arguments) -> int:
    """The most queries of one request."""
    query, layout = arguments["query"], arguments["input_layout"]
    if layout == "TND":
        ends = list(arguments["actual_seq_lengths"] or ())
        return max((end - begin for begin, end in zip([0, *ends], ends, strict=False)), default=0)
    return query.shape[2 if layout == "BNSD" else 1]


def _few_queries(query: Tensor, arguments: Arguments) -> str | None:
    found = _queries(arguments)
    return None if found <= 16 else f"of {found} queries for a request"


def _mask_of_several(sparse_mode: int, arguments: Arguments) -> str | None:
    several = arguments["input_layout"] != "TND" and _queries(arguments) > 1
    return f"{sparse_mode} for {_queries(arguments)} queries" if several and sparse_mode != 3 else None


def _precise(inner_precise: int, arguments: Arguments) -> str | None:
    if inner_precise in (0, 1):
        return None
    queries = _queries(arguments)
    return None if inner_precise in (2, 3) and queries > 1 else f"{inner_precise} for {queries} queries"


def _blocks(block_size: int, arguments: Arguments) -> str | None:
    nz = arguments["key"].dim() == 5
    return None if block_size == 128 or (block_size == 16 and not nz) else f"{block_size}{' in NZ' if nz else ''}"


def _layout(layout: str, arguments: Arguments) -> str | None:
    return "BNSD over an NZ cache" if layout == "BNSD" and arguments["key"].dim() == 5 else None


def _columns(most: int) -> Any:
    """The last dimension; of an NZ cache [blocks, 1, D / 16, block_size, 16] the columns D."""

    def found(tensor: Tensor, _: Arguments) -> str | None:
        columns = tensor.shape[2] * tensor.shape[4] if tensor.dim() == 5 else tensor.shape[-1]
        return None if columns == most else shape_text(tensor)

    return found


def _few_tokens(query: Tensor, arguments: Arguments) -> str | None:
    return shape_text(query) if arguments["input_layout"] == "TND" and query.shape[0] > _MILLION else None


def _indexed(cache: Tensor, arguments: Arguments) -> str | None:
    paged = arguments["block_table"] is not None
    return f"of {cache.numel()} elements" if paged and cache.numel() > _MOST_INDEXED else None


# Latent attention outside graphs, in ATB.

_ring = limits_of("atb.npu_ring_mla", sources.atb("ring_mla"))
_ring_types = limits_of("atb.npu_ring_mla", sources.ATB_TABLE)
_ring_kernel = limits_of("atb.npu_ring_mla", sources.atb_kernel("ring_mla"))
_latent = limits_of("atb.npu_multi_head_latent_attention", sources.atb("multi_latent_attention"))
_latent_types = limits_of("atb.npu_multi_head_latent_attention", sources.ATB_TABLE)
_paged_latent = limits_of("_npu_paged_attention_mla", sources.atb("paged_attention"))
_paged_latent_types = limits_of("_npu_paged_attention_mla", sources.ATB_TABLE)
_paged_latent_out = limits_of("_npu_paged_attention_mla", sources.ATB_TENSORS)


def _triangle(mask: Tensor, arguments: Arguments) -> str | None:
    if arguments["mask_type"] != "mask_type_triu":
        return None
    square = list(mask.shape)[-2:]
    seqlen = arguments["seqlen"]
    longest = [int(lengths.max()) for lengths in (seqlen if seqlen.dim() == 2 else (seqlen, seqlen))]
    return None if square in ([512, 512], [128, 128], longest) else shape_text(mask)


def _mask_type(mask: Tensor, arguments: Arguments) -> str | None:
    return dtype_of("q_nope")(mask, arguments) if arguments["mask_type"] == "mask_type_triu" else None


def _as_many_keys(seqlen: Tensor, arguments: Arguments) -> str | None:
    if arguments["mask_type"] != "mask_type_triu" or seqlen.dim() != 2:
        return None
    queries, keys = seqlen.tolist()
    short = [(q, k) for q, k in zip(queries, keys, strict=True) if 0 < k < q]
    return f"{short[0][1]} keys for {short[0][0]} queries" if short else None


def _row_for_each(table: Tensor, arguments: Arguments) -> str | None:
    requests = len(arguments["context_lens"])
    return None if table.shape[0] == requests else f"{shape_text(table)} for {requests} requests"


def _latent_block(cache: Tensor, arguments: Arguments) -> str | None:
    wide = cache.shape[-1] > 256 or arguments["mla_vheadsize"] > 256
    if not wide or cache.shape[1] <= 128:
        return None
    usual = (cache.shape[-1], arguments["mla_vheadsize"]) == (576, 512)
    return None if cache.shape[1] == 256 and arguments["num_heads"] in (16, 32) and usual else shape_text(cache)


# Dense models, in ATB.


def _dense(operator: str, tensors: str, masks: str = "") -> tuple[CallLimit, ...]:
    types = limits_of(operator, sources.ATB_TABLE)
    rows = [
        types(tensors, "bfloat16 or float16", half_types, half_types_only=True),
        limits_of(operator, sources.ATB_TENSORS)("out", "a contiguous tensor", contiguous),
    ]
    if masks:
        rows.append(types(masks, "the dtype of query", dtype_of("query")))
    return tuple(rows)


_paged = limits_of("_npu_paged_attention", sources.atb("paged_attention"))
_split = limits_of("_npu_paged_attention_splitfuse", sources.atb("paged_attention"))
_prefill = limits_of("_npu_flash_attention", sources.atb("self_attention"))
_prefix = limits_of("_npu_flash_attention_qlens", sources.atb("self_attention"))


def _wide_block(cache: Tensor, arguments: Arguments) -> str | None:
    return shape_text(cache) if cache.shape[-1] > 256 and cache.shape[1] > 128 else None


def _small_block(cache: Tensor, _: Arguments) -> str | None:
    return None if cache.shape[-1] <= 256 and cache.shape[-1] * cache.shape[1] <= 128 * 128 else shape_text(cache)


_up_to_576 = size(-1, range(1, 577))


def _requests(most: int) -> Any:
    def found(lengths: Tensor | Sequence[int], _: Arguments) -> str | None:
        return None if len(lengths) <= most else f"of {len(lengths)} requests"

    return found


LIMITS = (
    _train("query", "a head size of 1 to 768", _head_size),
    _train("query", "1 to 2097152 batch rows, or 1 to 2048 packed requests", _batch),
    _train("query, key", "1 to 1048576 positions", _positions),
    _train("head_num", "1 to 256", value(range(1, 257))),
    _train("value", "a head size of at most that of key", _no_wider),
    _train("atten_mask", "[2048, 2048] with sparse_mode 2, 3 or 4", _template),
    _fused(
        "query, key, value, query_rope, key_rope", "bfloat16 or float16", half_types, half_types_only=True
    ),
    _fused("query, key", "a latent of 512 with query_rope", _columns(512)),
    _fused("query_rope, key_rope", "a last dimension of 64", _columns(64)),
    _fused("num_heads", "32, 64 or 128 with a latent of 512", value((32, 64, 128))),
    _fused("query", "1 to 16 queries for a request", _few_queries),
    _fused("query", "at most 1048576 packed queries", _few_tokens),
    _fused(
        "query, query_rope",
        "a contiguous tensor",
        contiguous,
        contradiction="vLLM-Ascend 0.9.1 passes transposed views and CANN's definition (AutoContiguous) copies them",
    ),
    _fused("sparse_mode", "3, with the mask, for several queries", _mask_of_several),
    _fused("inner_precise", "0 or 1 for one query, 0 to 3 for several", _precise),
    _fused("key, value", "a paged cache of at most 2147483647 elements: int32 counts them", _indexed),
    _fused("block_size", "16 or 128 (in NZ: 128)", _blocks),
    _fused("input_layout", "BSND or TND over an NZ cache", _layout),
    _ring_types(
        "q_nope, q_rope, k_nope, k_rope, value", "bfloat16 or float16", half_types, half_types_only=True
    ),
    _ring("q_nope, k_nope, value", "a last dimension of 128", size(-1, (128,))),
    _ring("q_rope, k_rope", "a last dimension of 64", size(-1, (64,))),
    _ring_types("mask", "the dtype of q_nope", _mask_type),
    _ring_kernel("mask", "[512, 512], [128, 128] or [longest query, longest key]", _triangle),
    _ring_kernel("seqlen", "as many keys as queries, or none, under a triangle", _as_many_keys),
    _latent_types("q_nope, q_rope, ctkv, k_rope", "bfloat16 or float16", half_types, half_types_only=True),
    _latent("q_nope, ctkv", "a last dimension of 512", size(-1, (512,))),
    _latent("q_rope, k_rope", "a last dimension of 64", size(-1, (64,))),
    _latent("q_headnum", "8, 16, 32, 64 or 128", value((8, 16, 32, 64, 128))),
    _latent("ctkv", "blocks of at most 128", size(1, range(1, 129))),
    _latent("qk_scale", "above 0, at most 1", value(lambda scale: 0 < scale <= 1)),
    _latent("block_tables", "a row for each of context_lens", _row_for_each),
    _latent("context_lens", "at most 8192 requests", _requests(8192)),
    _paged_latent_types("query, key_cache", "bfloat16 or float16", half_types, half_types_only=True),
    _paged_latent("key_cache", "a last dimension of at most 576", _up_to_576),
    _paged_latent(
        "key_cache", "blocks of at most 128; with 16 or 32 heads and a size of 576 (512) also of 256", _latent_block
    ),
    _paged_latent("context_lens", "at most 8192 requests", _requests(8192)),
    _paged_latent_out("out", "a contiguous tensor", contiguous),
    *_dense("_npu_paged_attention", "query, key_cache, value_cache"),
    _paged("key_cache, value_cache", "a last dimension of at most 576", _up_to_576),
    _paged("key_cache, value_cache", "blocks of at most 128 with heads above 256", _wide_block),
    *_dense("_npu_paged_attention_splitfuse", "query, key_cache, value_cache", "mask"),
    _split("key_cache, value_cache", "heads of at most 256, blocks of at most 128 * 128 numbers a head", _small_block),
    *_dense("_npu_flash_attention", "query, key, value", "mask"),
    _prefill("key, value", "a last dimension of at most 576", _up_to_576),
    *_dense("_npu_flash_attention_qlens", "query, key_cache, value_cache", "mask"),
    _prefix("key_cache, value_cache", "a last dimension of at most 576", _up_to_576),
    _prefix("mask", "[128, 128]", lambda mask, _: None if list(mask.shape) == [128, 128] else shape_text(mask)),
)  # fmt: skip
