# SPDX-License-Identifier: Apache-2.0
"""What test_hollow.py compares, in a process of its own: `python hollow_process.py full|hollow`.

In a hollow process every floating tensor is without contents, however small. Prints one JSON object: by case, what the
case returned, or the error that it ended with.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch_npu
from torch_npu import _sim, sim

from benchmarks.npu_sim_opinfo import entries, tree_map


def used() -> list[int]:
    """Bytes of the device, the most since the last call, and page-locked bytes."""
    now = [torch.npu.memory_allocated(), torch.npu.max_memory_allocated(), _sim.pinned_bytes()]
    torch.npu.reset_peak_memory_stats()
    return now


def a_training_step() -> list[list[int]]:
    model = torch.nn.Sequential(
        torch.nn.Linear(64, 256), torch.nn.LayerNorm(256), torch.nn.GELU(), torch.nn.Linear(256, 8)
    )
    model = model.to(device="npu", dtype=torch.bfloat16)
    seen = [used()]
    for fused in (False, True):
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=fused)
        for _ in range(2):
            loss = torch.nn.functional.cross_entropy(
                model(torch.randn(32, 64).npu().bfloat16()).float(), torch.arange(32).npu() % 8
            )
            seen.append(used())
            loss.backward()
            seen.append(used())
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            seen.append(used())
            optimizer.zero_grad()
    return seen


def recomputed_and_autocast() -> list[list[int]]:
    from torch.utils.checkpoint import checkpoint

    layer = torch.nn.Linear(128, 128).npu()
    x = torch.randn(16, 128, device="npu", requires_grad=True)
    with torch.autocast("npu", torch.bfloat16):
        y = checkpoint(lambda value: layer(value).relu(), x, use_reentrant=False)
    seen = [used()]
    y.float().sum().backward()
    return [*seen, used()]


def offloaded_and_back() -> list[list[int]]:
    """As verl offloads: storages emptied and filled again, `.data` exchanged, page-locked copies."""
    weight = torch.nn.Parameter(torch.randn(256, 64, device="npu"))
    seen = [used()]
    on_host = weight.data.cpu().pin_memory()
    seen.append(used())
    weight.untyped_storage().resize_(0)
    seen.append(used())
    weight.untyped_storage().resize_(on_host.nbytes)
    weight.data.copy_(on_host, non_blocking=True)
    seen.append(used())
    weight.data = on_host
    seen.append(used())
    weight.data = weight.data.to("npu", non_blocking=True)
    seen.append(used())
    pinned = torch.empty(1000, pin_memory=True)
    assert pinned.is_pinned() and on_host.is_pinned()
    return [*seen, used()]


def the_optimizer_on_the_host() -> list[list[int]]:
    weight = torch.nn.Parameter(torch.randn(64, 64).pin_memory())
    weight.grad = torch.zeros_like(weight)
    for fused in (True, False):
        torch.optim.AdamW([weight], fused=fused).step()
    return [used()]


def views_places_and_outs() -> list[Any]:
    x = torch.randn(8, 6, device="npu")
    x[:, 1].mul_(2)
    x.t()[0].add_(x[:, 2])
    out = torch.empty(0, device="npu")
    torch.mul(x, 2, out=out)
    torch.cat([x, x], out=out)
    a, b = x.split([2, 4], dim=1)
    shapes = [list(t.shape) for t in (out, a, b, x[..., None].expand(8, 6, 3), x.unflatten(1, (2, 3)), *x.unbind(1))]
    return [shapes, used()]


def known_masks_decide_shapes() -> list[Any]:
    x, mask = torch.randn(8, 6, device="npu"), (torch.arange(8) % 3 == 0).npu()
    x[mask] = 0.0
    rows = [
        x[mask],
        x[mask, :2],
        torch.masked_select(x, mask[:, None]),
        x[mask.nonzero().flatten()],
        x.index_select(0, mask.long()),
    ]
    return [[list(t.shape) for t in rows], used()]


def fused_operators() -> list[Any]:
    x = torch.randn(32, 128, device="npu", dtype=torch.bfloat16, requires_grad=True)
    gamma = torch.ones(128, device="npu", dtype=torch.bfloat16)
    seen = []
    y, _ = torch_npu.npu_rms_norm(x, gamma)
    y = torch_npu.npu_swiglu(y)
    seen.append([list(y.shape), used()])
    y.sum().backward()
    seen.append([list(x.grad.shape), used()])
    query = torch.randn(32, 4, 32, device="npu", dtype=torch.bfloat16, requires_grad=True)
    out = torch_npu.npu_fusion_attention(
        query, query, query, 4, "TND", scale=0.2, atten_mask=torch.ones(2048, 2048, dtype=torch.bool).triu(1).npu(),
        sparse_mode=3, actual_seq_qlen=[12, 32], actual_seq_kvlen=[12, 32],
    )  # fmt: skip
    out[0].sum().backward()
    seen.append([[list(t.shape) for t in out if isinstance(t, torch.Tensor)], used()])
    experts = torch.arange(64).view(32, 2).npu() % 4
    permuted, order = torch_npu.npu_moe_token_permute(x.detach(), experts)
    counts = torch.full((4,), 16).cumsum(0).npu()
    weights = torch.randn(4, 128, 64, device="npu", dtype=torch.bfloat16)
    products = torch_npu.npu_grouped_matmul([permuted], [weights], group_list=counts, split_item=2, group_type=0)
    back = torch_npu.npu_moe_token_unpermute(products[0], order)
    return [*seen, [list(permuted.shape), list(products[0].shape), list(back.shape), used()]]


def operators() -> dict[str, list[Any]]:
    """Of torch's operator database: shapes, strides and dtypes of what comes out, and the bytes that it takes."""
    found: dict[str, list[Any]] = {}
    for entry in entries(torch.float32):
        random.seed(0), np.random.seed(0), torch.manual_seed(0)
        with sim.with_contents():
            sample = next(iter(entry.sample_inputs("cpu", torch.float32)), None)
        if sample is None:
            continue
        arguments = tree_map(
            lambda x: x.npu() if isinstance(x, torch.Tensor) else x, (sample.input, sample.args, sample.kwargs)
        )
        before = used()[0]
        try:
            results = entry(arguments[0], *arguments[1], **arguments[2])
        except Exception as error:
            found[entry.full_name] = [type(error).__name__]
            continue
        tensors = [
            t for t in (results if isinstance(results, (tuple, list)) else [results]) if isinstance(t, torch.Tensor)
        ]
        after = used()
        found[entry.full_name] = [
            [[list(t.shape), str(t.dtype), list(t.stride()) if t.numel() else []] for t in tensors],
            after[0] - before,
            after[1] - before,
        ]
    return found


CASES: tuple[Callable[[], Any], ...] = (
    a_training_step,
    recomputed_and_autocast,
    offloaded_and_back,
    the_optimizer_on_the_host,
    views_places_and_outs,
    known_masks_decide_shapes,
    fused_operators,
    operators,
)


def main() -> None:
    if sys.argv[1] == "hollow":
        # of integers, the 0 by which factorizations say that they succeeded
        sim.make_hollow(1, read=lambda operator, dtype: 0.5 if dtype.is_floating_point else 0)
    results = {}
    for case in CASES:
        used()
        results[case.__name__] = case()
    print(json.dumps(results))


if __name__ == "__main__":
    main()
