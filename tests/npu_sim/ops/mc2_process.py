# SPDX-License-Identifier: Apache-2.0
"""One rank of test_ops_mc2: a MoE layer through dispatch and combine as vLLM-Ascend's decode calls them."""

import os
import sys

import pytest
import torch
import torch.distributed as dist
import torch_npu

LOCAL_EXPERTS, HIDDEN, TOP = 3, 4, 2
rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
torch.npu.set_device(rank)
dist.init_process_group("hccl")
experts = LOCAL_EXPERTS * world
group = dist.distributed_c10d._get_default_group()
name = group._get_backend(torch.device("npu")).get_hccl_comm_name(rank)
common = {
    "group_ep": name,
    "ep_world_size": world,
    "ep_rank_id": rank,
    "moe_expert_num": experts,
    "expert_shard_type": 0,
    "shared_expert_rank_num": 0,
    "group_tp": name,
    "tp_world_size": 1,
    "tp_rank_id": 0,
}

weights = torch.randn(experts, HIDDEN, HIDDEN, generator=torch.Generator().manual_seed(1))  # the same on every rank
own = torch.Generator().manual_seed(2 + rank)


def expected(x, chosen, scales, active):
    out = torch.zeros(x.shape, dtype=torch.float64)
    for t in range(len(x)):
        for j in range(TOP if active[t] else 0):
            out[t] += scales[t, j].double() * (x[t].double() @ weights[chosen[t, j]].double())
    return out


for tokens, masked in ((5 + rank, False), (4, True), (1, False)):
    biggest = 5 + world - 1 if tokens > 4 else tokens
    x = torch.randn(tokens, HIDDEN, generator=own)
    chosen = torch.stack([torch.randperm(experts, generator=own)[:TOP] for _ in range(tokens)]).int()
    scales = torch.rand(tokens, TOP, generator=own)
    active = torch.arange(tokens) < (3 if masked else tokens)
    mask = active.npu() if masked else None
    expand_x, _, assist, counts, received, tp_counts, _ = torch_npu.npu_moe_distribute_dispatch_v2(
        x=x.npu(),
        expert_ids=chosen.npu(),
        global_bs=biggest * world,
        scales=None,
        quant_mode=0,
        x_active_mask=mask,
        **common,
    )
    assert counts.dtype == torch.int64 and counts.shape == (LOCAL_EXPERTS,) and received.dtype == torch.int32
    assert expand_x.shape == (biggest * world * min(LOCAL_EXPERTS, TOP), HIDDEN)
    arrived = int(counts.sum())
    assert not bool(expand_x[:arrived].isnan().any()) and bool(expand_x[arrived:].isnan().all())
    mine = weights[rank * LOCAL_EXPERTS : (rank + 1) * LOCAL_EXPERTS].npu()
    (result,) = torch_npu.npu_grouped_matmul(
        [expand_x], [mine], split_item=2, group_list_type=1, group_type=0, group_list=counts
    )
    out = torch_npu.npu_moe_distribute_combine_v2(
        expand_x=result,
        expert_ids=chosen.npu(),
        expert_scales=scales.npu(),
        global_bs=biggest * world,
        ep_send_counts=received,
        assist_info_for_combine=assist,
        tp_send_counts=tp_counts,
        x_active_mask=mask,
        **common,
    )
    torch.testing.assert_close(out.cpu().double(), expected(x, chosen, scales, active), rtol=1e-5, atol=1e-5)

x, chosen = torch.zeros(2, HIDDEN).npu(), torch.zeros(2, TOP, dtype=torch.int32).npu()
call = torch_npu.npu_moe_distribute_dispatch_v2
for changed, error, message in (
    ({"quant_mode": 2}, NotImplementedError, "quant_mode=2"),
    ({"scales": torch.ones(2).npu()}, NotImplementedError, "scales"),
    ({"tp_world_size": 2}, NotImplementedError, "tp_world_size=2"),
    ({"expert_ids": chosen.long()}, ValueError, "expert_ids is of dtype int64"),
    ({"group_ep": "nobody"}, ValueError, "group_ep is 'nobody'"),
    ({"ep_world_size": experts}, ValueError, "ep_world_size is"),
    ({"x": x.cpu()}, RuntimeError, "x is on cpu"),
):
    with pytest.raises(error, match=f"npu_moe_distribute_dispatch_v2.*{message}"):
        call(**{"x": x, "expert_ids": chosen, **common, **changed})

dist.barrier()
print("mc2 agrees", flush=True)
dist.destroy_process_group()
sys.exit(0)
