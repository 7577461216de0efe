# SPDX-License-Identifier: Apache-2.0
"""One of two engines of a data-parallel domain: what they agree on, by HCCL with our patches, and by Gloo without.

For tests/ranks.py, with RECIPE_DP_SYNC_ON_DEVICE set; a rank writes `<out>.<rank>.json`.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import verl_patches.prelude_patch  # noqa: F401  lays the overlay over what is imported from here on

# isort: split
import torch
import torch.distributed as dist
from vllm.config import ParallelConfig
from vllm.distributed import parallel_state
from vllm_ascend.worker.model_runner_v1 import NPUModelRunner

from recipe import overlay

BOTH = list(itertools.product((False, True), repeat=2))
# Tokens and tokens padded to a graph, of each rank.
COUNTS = [((1, 7), (1, 7)), ((3, 8), (8, 8)), ((512, 16), (512, 16))]


def run(job: dict[str, Any], rank: int) -> None:
    torch.npu.set_device(rank)
    dist.init_process_group("hccl")
    parallel_state._DP = parallel_state.GroupCoordinator([[0, 1]], rank, "hccl", False, group_name="dp")
    stock_group = parallel_state._DP.cpu_group
    backends = note_backends()

    found = {"with": agreed(rank, stock_group), "backends with": sorted(backends)}
    backends.clear()
    overlay.revert(
        "vllm_patches.config:has_unfinished_dp",
        "vllm_ascend_patches.worker.model_runner_v1:_get_forward_metadata_across_dp",
    )
    found |= {"without": agreed(rank, stock_group), "backends without": sorted(backends)}
    Path(f"{job['out']}.{rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


def note_backends() -> set[str]:
    """Which libraries reduce from now on."""
    seen, real = set(), dist.all_reduce

    def all_reduce(tensor: torch.Tensor, op: Any = dist.ReduceOp.SUM, group: Any = None, **options: Any) -> Any:
        seen.add(dist.get_backend(group))
        return real(tensor, op=op, group=group, **options)

    dist.all_reduce = all_reduce
    return seen


def agreed(rank: int, group: Any) -> list[Any]:
    """The domain's answers to every mixture of what its two ranks say."""
    answers: list[Any] = [ParallelConfig.has_unfinished_dp(group, said[rank]) for said in BOTH]
    for graph in (False, True):
        runner = SimpleNamespace(
            dp_size=2, dp_rank=rank, is_kv_producer=False, is_kv_consumer=False, torchair_graph_enabled=graph
        )
        for (tokens, padded), prefill, dbo in itertools.product(COUNTS, BOTH, BOTH):
            length, across, with_prefill, enable_dbo = NPUModelRunner._get_forward_metadata_across_dp(
                runner, padded[rank], tokens[rank], prefill[rank], dbo[rank]
            )
            assert across.device.type == "cpu" and across.dtype == torch.int32
            answers.append([length, across.tolist(), with_prefill, enable_dbo])
    return answers
