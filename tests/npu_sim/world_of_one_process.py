# SPDX-License-Identifier: Apache-2.0
"""One rank of the checks in test_world_of_one.py.

For tests/ranks.py; the job names one of JOBS below. In a real world all ranks hand in the same, so that each of them is
what a world of one says it is.
"""

from __future__ import annotations

import itertools
import os
import resource
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.distributed._functional_collectives as functional
import torch_npu
from megatron.core import parallel_state
from torch.distributed import _coalescing_manager
from torch_npu.distributed.world_of_one import StoreOfOne

Reading = Callable[[], Any]
BACKENDS = "cpu:gloo,npu:hccl"
SUMMED = (torch.float32, torch.bfloat16, torch.int64, torch.int16, torch.int8, torch.uint8, torch.bool, torch.complex64)
MOVED = (*SUMMED, torch.float64, torch.float8_e4m3fn)
TRAFFIC_OF_ALL = {
    *("allreduce", "broadcast", "reduce", "allgather", "_allgather_base", "reduce_scatter", "_reduce_scatter_base"),
    *("scatter", "alltoall_base", "alltoall", "send", "recv", "barrier"),
    *("npu_moe_distribute_dispatch_v2", "npu_moe_distribute_combine_v2"),
}


class Held:
    """What every rank holds, on a device.

    Args:
        device: npu:RANK or cpu.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def made(self, *sizes: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """0 1 2 0 1 2 ...: exact in every dtype, sums of a few too."""
        count = torch.Size(sizes).numel()
        # A part of its storage: where tensors are without contents, values that are written to a part are not kept.
        tensor = torch.zeros(count + (count > 0), dtype=dtype, device=self.device)[:count]
        return tensor.copy_((torch.arange(count) % 3).to(dtype)).view(sizes)

    def empty(self, *sizes: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.empty(sizes, dtype=dtype, device=self.device)


def reduced(held: Held, rank: int, size: int, dtypes: tuple[torch.dtype, ...]) -> Iterator[tuple[str, Reading]]:
    """Collectives that reduce."""
    for dtype in dtypes:
        whole = not dtype.is_floating_point and not dtype.is_complex
        names = ["SUM"]
        names += ["MIN", "MAX", "PRODUCT"] if not dtype.is_complex else []
        names += ["BAND", "BOR", "BXOR"] if whole and dtype != torch.bool else []
        names += ["AVG"] if not whole and held.device.type == "npu" else []
        for name in names:
            yield f"{name} {dtype}", lambda d=dtype, n=name: reductions(held, rank, size, d, getattr(dist.ReduceOp, n))


def reductions(held: Held, rank: int, size: int, dtype: torch.dtype, op: Any) -> Any:
    every = held.made(5, dtype=dtype)
    dist.all_reduce(every, op=op)
    found = [every]
    for root in range(size):
        at_root = held.made(3, 2, dtype=dtype)
        dist.reduce(at_root, root, op=op)
        # gloo's own leaves its scratch on other ranks
        found += [at_root] if rank == root or held.device.type == "npu" else []
    if held.device.type == "npu":
        even, uneven = held.empty(4, dtype=dtype), held.empty(rank + 1, 2, dtype=dtype)
        given = held.made(4 * size, dtype=dtype)
        dist.reduce_scatter_tensor(even, given, op=op)
        dist.reduce_scatter(uneven, [held.made(r + 1, 2, dtype=dtype) for r in range(size)], op=op)
        found += [even, uneven, given]
    return found


def moved(held: Held, rank: int, size: int, dtypes: tuple[torch.dtype, ...]) -> Iterator[tuple[str, Reading]]:
    """Collectives that move data."""
    for dtype in dtypes:
        yield f"moved {dtype}", lambda d=dtype: movements(held, rank, size, d)


def movements(held: Held, rank: int, size: int, dtype: torch.dtype) -> Any:
    own = held.made(3, 2, dtype=dtype)
    for root in range(size):
        dist.broadcast(own, root)
    listed = [held.empty(3, 2, dtype=dtype) for _ in range(size)]
    dist.all_gather(listed, own)
    together = held.empty(3 * size, 2, dtype=dtype)
    dist.all_gather_into_tensor(together, own)
    gathered = [held.empty(3, 2, dtype=dtype) for _ in range(size)] if rank == 0 else None
    dist.gather(own, gathered, dst=0)
    scattered = held.empty(2, dtype=dtype)
    dist.scatter(
        scattered, [held.made(2, dtype=dtype) for _ in range(size)] if rank == size - 1 else None, src=size - 1
    )
    found = [own, *listed, together, *(gathered or []), *([scattered] if rank == size - 1 else [])]

    even, uneven = held.empty(2 * size, dtype=dtype), held.empty((rank + 2) * size, 2, dtype=dtype)
    dist.all_to_all_single(even, held.made(2 * size, dtype=dtype))
    splits = [r + 2 for r in range(size)]
    dist.all_to_all_single(uneven, held.made(sum(splits), 2, dtype=dtype), [rank + 2] * size, splits)
    nothing = held.empty(rank * size, dtype=dtype)  # rank 0 gets none
    dist.all_to_all_single(nothing, held.made(sum(range(size)), dtype=dtype), [rank] * size, list(range(size)))
    found += [even, uneven, nothing]
    if held.device.type == "npu":  # gloo's own has no all-to-all of lists
        pieces = [held.empty(rank + 1, dtype=dtype) for _ in range(size)]
        dist.all_to_all(pieces, [held.made(r + 1, dtype=dtype) for r in range(size)])
        found += pieces
    if not dtype.is_floating_point and not dtype.is_complex:
        received = held.empty(7, dtype=dtype)
        ring = [
            dist.P2POp(dist.isend, held.made(7, dtype=dtype), (rank + 1) % size),
            dist.P2POp(dist.irecv, received, (rank - 1) % size),
        ]
        for work in dist.batch_isend_irecv(ring):
            work.wait()
        found.append(received)
    return found


def coalesced(held: Held, size: int) -> Any:
    sums = [held.made(4), held.made(3, 2)]
    with _coalescing_manager(async_ops=True) as manager:
        for one in sums:
            dist.all_reduce(one)
    manager.wait()
    gathered, scattered = [held.empty(3 * size) for _ in "ab"], [held.empty(2) for _ in "ab"]
    with _coalescing_manager(device=held.device):
        for output in gathered:
            dist.all_gather_into_tensor(output, held.made(3))
    with _coalescing_manager():
        for output in scattered:
            dist.reduce_scatter_tensor(output, held.made(2 * size))
    return sums + gathered + scattered


def objects(rank: int, size: int, group: Any) -> Any:
    listed, everywhere, scattered = [{"held": 1}, "by all"], [None] * size, [None]
    dist.broadcast_object_list(listed, src=size - 1, group=group)
    dist.all_gather_object(everywhere, {"held": (1, 2)}, group=group)
    dist.scatter_object_list(scattered, [{"place": r} for r in range(size)], src=0, group=group)
    gathered = [None] * size if rank == 0 else None
    dist.gather_object([1, 2], gathered, dst=0, group=group)
    return [listed, everywhere, scattered, gathered]


def others(held: Held, rank: int, size: int) -> Iterator[tuple[str, Reading]]:
    """What is neither reduced nor moved, and what stands on collectives."""
    pair, beside = dist.new_group([0, 1], backend="hccl"), dist.new_group(backend="gloo")
    by_hccl = dist.new_group(backend="hccl")

    def within_a_group() -> Any:
        x = held.made(4)
        if rank < 2:
            dist.all_reduce(x, group=pair)
            dist.all_gather([held.empty(4), held.empty(4)], x, group=pair)
        return x

    def barriers() -> Any:
        for group in (None, beside, by_hccl):
            dist.barrier(group=group)
        dist.monitored_barrier(group=beside)
        return [list(dist.get_process_group_ranks(group)) for group in (dist.group.WORLD, beside)]

    def as_functions() -> Any:
        return [
            functional.all_reduce(held.made(2), "sum", dist.group.WORLD),
            functional.all_gather_tensor(held.made(2), 0, dist.group.WORLD),
            functional.reduce_scatter_tensor(held.made(2 * size), "sum", 0, dist.group.WORLD),
        ]

    def trained() -> Any:
        torch.manual_seed(0)
        model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(2, 1).to(held.device))
        model(held.made(3, 2)).sum().backward()
        return model.module.weight.grad

    yield "coalesced", lambda: coalesced(held, size)
    yield "objects", lambda: objects(rank, size, None)
    yield "objects by hccl", lambda: objects(rank, size, by_hccl)
    yield "a group", within_a_group
    yield "barriers", barriers
    yield "functions", as_functions
    yield "training", trained
    yield "experts, evenly", lambda: experts(held, size, [[r, size + r] for r in range(size)])
    yield "experts, unevenly", lambda: dispatched(held, size, [[0, 1], [0, 2 * size - 1], [1, 0]])[0]


def dispatched(held: Held, size: int, chosen: list[list[int]]) -> tuple[Any, ...]:
    """Rows of two experts a rank, by the fused operator; and what combine is handed beside them."""
    backend = dist.group.WORLD._get_backend(held.device)
    common = {
        "expert_ids": torch.tensor(chosen, dtype=torch.int32, device=held.device),
        "group_ep": backend.get_hccl_comm_name(dist.get_rank()),
        "ep_world_size": size,
        "ep_rank_id": dist.get_rank(),
        "moe_expert_num": 2 * size,
    }
    x = torch.ones(len(chosen), 1, device=held.device) * torch.arange(4.0, device=held.device)
    rows, _, assist, counts, received, _, _ = torch_npu.npu_moe_distribute_dispatch_v2(x=x, **common)
    arrived = rows[: int(counts.sum())]
    return [arrived, counts, received], common, {"assist_info_for_combine": assist, "ep_send_counts": received}


def experts(held: Held, size: int, chosen: list[list[int]]) -> Any:
    found, common, back = dispatched(held, size, chosen)
    scales = torch.arange(1.0, 2 * len(chosen) + 1, device=held.device).view(-1, 2)
    rows = torch.cat([found[0] * 2, torch.full((9, 4), float("nan"), device=held.device)])
    combined = torch_npu.npu_moe_distribute_combine_v2(expand_x=rows, expert_scales=scales, **common, **back)
    return [*found, combined]


def on_host(found: Any) -> Any:
    if isinstance(found, torch.Tensor):
        return found.cpu()
    return [on_host(one) for one in found] if isinstance(found, (list, tuple)) else found


def seen(rank: int, size: int) -> dict[str, tuple[Any, Any]]:
    """(what a case leaves, its traffic), by the case."""
    npu, cpu = Held(torch.device("npu", rank)), Held(torch.device("cpu"))
    by_gloo = (torch.float32, torch.bfloat16, torch.int64, torch.int8, torch.uint8)
    cases = itertools.chain(
        reduced(npu, rank, size, SUMMED),
        moved(npu, rank, size, MOVED),
        others(npu, rank, size),
        ((f"cpu {name}", read) for name, read in reduced(cpu, rank, size, by_gloo)),
        ((f"cpu {name}", read) for name, read in moved(cpu, rank, size, by_gloo)),
    )
    found = {}
    for name, read in cases:
        torch_npu.sim.reset_traffic()
        found[name] = (on_host(read()), torch_npu.sim.traffic())
    return found


def same(found: Any, expected: Any) -> bool:
    if isinstance(found, torch.Tensor):
        return found.dtype == expected.dtype and bool(torch.equal(found, expected))
    if isinstance(found, list):
        return len(found) == len(expected) and all(map(same, found, expected))
    return bool(found == expected)


def equals_a_real_world(rank: int) -> None:
    size = int(os.environ["WORLD_SIZE"])
    torch.npu.set_device(rank)
    dist.init_process_group(BACKENDS, timeout=timedelta(seconds=60))
    expected = seen(rank, size)
    dist.barrier()
    dist.destroy_process_group()
    torch_npu.sim.make_world_of_one(rank, size)
    dist.init_process_group(BACKENDS)
    found = seen(rank, size)
    assert list(found) == list(expected)
    wrong = [
        f"{name}: {what} {one[i]}, in a real world {expected[name][i]}"
        for name, one in found.items()
        for i, what in enumerate(("left", "moved"))
        if not same(one[i], expected[name][i])
    ]
    assert not wrong, "\n".join(wrong)
    kinds = {row.kind for _, rows in expected.values() for row in rows}
    assert kinds == TRAFFIC_OF_ALL, kinds ^ TRAFFIC_OF_ALL
    of = {row.ranks for _, rows in expected.values() for row in rows}
    assert of == {tuple(range(size))} | ({(0, 1)} if rank < 2 else set())
    dist.destroy_process_group()


def tensors_without_contents(_: int) -> None:
    """They pass through every collective, and move the same bytes."""
    rank, size = 1, 3
    torch_npu.sim.make_world_of_one(rank, size)
    runs = []
    for hollow in (False, True):
        if hollow:
            torch_npu.sim.make_hollow(1)
        dist.init_process_group(BACKENDS, init_method="tcp://127.0.0.1:1")
        runs.append(seen(rank, size))
        dist.destroy_process_group()
    full, hollow_run = runs
    for name, (left, moved_bytes) in hollow_run.items():
        assert moved_bytes == full[name][1], name
        for one in tensors(left):
            if not one.is_complex():  # which only computing with floating parts makes hollow
                assert torch_npu.sim.is_hollow(one) == (one.is_floating_point() and one.numel() > 0), (name, one.dtype)
    integers = [name for name in full if "int" in name]
    assert integers and all(same(hollow_run[name][0], full[name][0]) for name in integers)


def tensors(found: Any) -> list[torch.Tensor]:
    if isinstance(found, torch.Tensor):
        return [found]
    return [one for part in found for one in tensors(part)] if isinstance(found, list) else []


def what_is_refused(_: int) -> None:
    for rank, size in ((-1, 2), (2, 2), (0, 0)):
        with pytest.raises(ValueError, match=f"rank {rank} is none of 0 to {size - 1}"):
            torch_npu.sim.make_world_of_one(rank, size)
    torch_npu.sim.make_world_of_one(5, 8)
    with pytest.raises(ValueError, match=r"made as 5 of 8, found \{'rank': 0, 'world_size': 1\}"):  # the environment's
        dist.init_process_group("hccl")
    with pytest.raises(RuntimeError, match="a world of one opens no socket"):
        dist.TCPStore("127.0.0.1", 1, 8, False)
    dist.init_process_group("hccl", init_method="tcp://127.0.0.1:1", rank=5, world_size=8)
    with pytest.raises(RuntimeError, match="initialised already"):
        torch_npu.sim.make_world_of_one(5, 8)
    store = dist.distributed_c10d._get_default_store()
    store.wait(["of a peer"])
    with pytest.raises(dist.DistStoreError, match=r"nobody else could have set .*of a peer"):
        store.get("of a peer")
    store.set("own", "value")
    assert (store.get("own"), store.add("count", 2), store.add("count", 1)) == (b"value", 2, 3)
    with pytest.raises(RuntimeError, match="AVG"):
        dist.all_reduce(torch.ones(2), op=dist.ReduceOp.AVG, group=dist.new_group(backend="gloo"))
    dist.destroy_process_group()


def what_only_a_peer_knows(_: int) -> None:
    torch_npu.sim.make_world_of_one(1, 256)
    dist.init_process_group(BACKENDS, rank=1, world_size=256, init_method="tcp://127.0.0.1:1")
    for held in (Held(torch.device("npu", 0)), Held(torch.device("cpu"))):
        for dtype in (torch.float32, torch.bfloat16, torch.int64, torch.bool):
            known, nothing = (held.made(4, dtype=dtype) for _ in range(2))
            stays = known.tolist() if dtype.is_floating_point else [0] * 4
            for call in (lambda x: dist.recv(x, 0), lambda x: dist.scatter(x, None, src=0)):
                x = held.made(4, dtype=dtype)
                call(x)
                assert x.tolist() == stays, (x, stays)
            dist.send(known, 0)
            assert dist.recv(nothing, 7) == 7 and nothing.tolist() == known.tolist()
            larger, smaller = held.empty(6, dtype=dtype), held.empty(3, dtype=dtype)
            dist.all_to_all_single(held.empty(0, dtype=dtype), held.empty(0, dtype=dtype))
            splits = [0, 4, *[0] * 254]
            dist.all_to_all_single(larger, known, [0, 0, 6, *[0] * 253], splits)
            assert larger.tolist() == [*known.tolist(), *known.tolist()[:2]]
            dist.all_to_all_single(smaller, known, [1, 0, 2, *[0] * 253], splits)
            assert smaller.tolist() == [known[0], known[0], known[1]]
            dist.all_to_all_single(smaller, known, [1, 0, 2, *[0] * 253], [4, *[0] * 255])
            assert smaller.tolist() == [0] * 3  # nothing for oneself
        outputs = [held.empty(4 if r == 1 else r % 3) for r in range(256)]
        if held.device.type == "npu":
            dist.all_gather(outputs, held.made(4))
            assert [o.tolist() for o in outputs[:4]] == [[], [0, 1, 2, 0], [0, 1], []]
    own = [None, {"own": 1}]
    dist.broadcast_object_list(own, src=0)
    assert own == [None, {"own": 1}]
    scattered = ["own"]
    dist.scatter_object_list(scattered, None, src=0)
    assert scattered == ["own"]


def what_is_counted(_: int) -> None:
    torch_npu.sim.make_world_of_one(1, 4)
    dist.init_process_group("hccl", init_method="tcp://127.0.0.1:1")
    beside = dist.new_group([1, 3])
    held = Held(torch.device("npu", 0))
    x, four = held.made(8), [held.made(2) for _ in range(4)]  # 32 bytes, 4 times 8
    calls: dict[str, tuple[Reading, int, int]] = {
        "allreduce": (lambda: dist.all_reduce(held.made(8, dtype=torch.bool)), 8, 8),
        "broadcast": (lambda: (dist.broadcast(x, 0), dist.broadcast(x, 1)), 32, 32),
        "reduce": (lambda: (dist.reduce(x, 0), dist.reduce(x, 1)), 64, 32),
        "allgather": (lambda: dist.all_gather([held.empty(r + 7) for r in range(4)], x), 32, 7 * 4 + 32 + 36 + 40),
        "_allgather_base": (lambda: dist.all_gather_into_tensor(held.empty(32), x), 32, 128),
        "reduce_scatter": (lambda: dist.reduce_scatter(held.empty(2), four), 32, 8),
        "_reduce_scatter_base": (lambda: dist.reduce_scatter_tensor(held.empty(2), x), 32, 8),
        "scatter": (lambda: (dist.scatter(held.empty(2), four, 1), dist.scatter(held.empty(2), None, 0)), 32, 16),
        "alltoall_base": (lambda: dist.all_to_all_single(held.empty(5), x, [1, 1, 3, 0], [2, 2, 2, 2]), 32, 20),
        "alltoall": (lambda: dist.all_to_all([held.empty(1) for _ in four], four), 32, 16),
        "send": (lambda: dist.send(x, 0), 32, 0),
        "recv": (lambda: dist.recv(x, 0), 0, 32),
        "barrier": (lambda: dist.barrier(), 0, 0),
    }
    for kind, (call, sent, received) in calls.items():
        torch_npu.sim.reset_traffic()
        call()
        (row,) = torch_npu.sim.traffic()
        times = 2 if kind in ("broadcast", "reduce", "scatter") else 1
        assert row == torch_npu.sim.GroupTraffic((0, 1, 2, 3), kind, times, sent, received), row
    torch_npu.sim.reset_traffic()
    with pytest.raises(RuntimeError, match="the output holds"):
        dist.all_gather_into_tensor(held.empty(3), x)
    store = StoreOfOne()
    backend = torch_npu._C._distributed_c10d.ProcessGroupHCCL(store, 0, 2)
    backend.allreduce([x]).wait()
    for _ in range(2):
        dist.all_reduce(x, group=beside)
    assert torch_npu.sim.traffic() == [
        torch_npu.sim.GroupTraffic((), "allreduce", 1, 32, 32),  # made by hand: of ranks that nobody named
        torch_npu.sim.GroupTraffic((1, 3), "allreduce", 2, 64, 64),
    ]
    torch_npu.sim.reset_counts()
    assert torch_npu.sim.traffic(), "has a reset of its own"
    found, common, back = dispatched(held, 4, [[0, 2], [3, 7]])
    torch_npu.npu_moe_distribute_combine_v2(
        expand_x=found[0], expert_scales=torch.ones(2, 2, device=held.device), **common, **back
    )
    fused = [row for row in torch_npu.sim.traffic() if row.ranks == (0, 1, 2, 3)]
    row_bytes = 4 * 4  # 4 rows sent; each of 4 peers sends the 2 rows of this rank's experts
    assert fused == [
        torch_npu.sim.GroupTraffic((0, 1, 2, 3), "npu_moe_distribute_combine_v2", 1, 8 * row_bytes, 4 * row_bytes),
        torch_npu.sim.GroupTraffic((0, 1, 2, 3), "npu_moe_distribute_dispatch_v2", 1, 4 * row_bytes, 8 * row_bytes),
    ], fused
    assert torch_npu.sim.collective_counts() == {}


def a_large_group_is_cheap(_: int) -> None:
    """No copies of what only peers would take, and none of what is written in place."""
    torch_npu.sim.make_world_of_one(0, 256)
    dist.init_process_group("hccl", init_method="tcp://127.0.0.1:1")
    held = Held(torch.device("npu", 0))
    x, y = held.made(1 << 18), held.made(1 << 18)  # 1 MiB
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    dist.reduce_scatter(y, [x] * 256)
    assert torch.equal(y, x * 256)
    for call in (lambda: dist.all_gather([y] * 256, x), lambda: dist.all_to_all([y] * 256, [x] * 256)):
        y.zero_()
        call()
        assert torch.equal(y, x)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 << 10  # KiB


def megatron_layout(_: int) -> None:
    rank, world, stage = 37, 256, 32
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        del os.environ[name]
    torch_npu.sim.make_world_of_one(rank, world)
    started = time.monotonic()
    dist.init_process_group("hccl")
    parallel_state.initialize_model_parallel(
        tensor_model_parallel_size=1,
        pipeline_model_parallel_size=8,
        expert_model_parallel_size=32,
        expert_tensor_parallel_size=1,
    )
    elapsed = time.monotonic() - started
    assert elapsed < 20, elapsed
    of_stage = list(range(32, 64))
    groups = {
        parallel_state.get_tensor_model_parallel_group: [rank],
        parallel_state.get_pipeline_model_parallel_group: list(range(rank % stage, world, stage)),
        parallel_state.get_data_parallel_group: of_stage,
        parallel_state.get_data_parallel_group_gloo: of_stage,
        parallel_state.get_expert_model_parallel_group: of_stage,
        parallel_state.get_model_parallel_group: list(range(rank % stage, world, stage)),
    }
    for get, ranks in groups.items():
        assert dist.get_process_group_ranks(get()) == ranks, get.__name__
        assert (dist.get_rank(get()), dist.get_world_size(get())) == (ranks.index(rank), len(ranks))
    assert parallel_state.get_pipeline_model_parallel_rank() == 1 and not parallel_state.is_pipeline_last_stage()

    torch_npu.sim.reset_traffic()
    x = torch.ones(3, device="npu")
    dist.all_reduce(x, group=parallel_state.get_data_parallel_group())
    assert x.tolist() == [32, 32, 32]
    y = torch.ones(2, dtype=torch.int64)
    dist.all_reduce(y, group=parallel_state.get_data_parallel_group_gloo())
    assert y.tolist() == [32, 32]
    ranks = tuple(of_stage)
    assert torch_npu.sim.traffic() == [torch_npu.sim.GroupTraffic(ranks, "allreduce", 1, 12, 12)]
    assert not [fd for fd in open_files() if fd.startswith("socket:")]
    dist.destroy_process_group()


def open_files() -> list[str]:
    return [os.readlink(file) for file in Path("/proc/self/fd").iterdir() if file.is_symlink()]


JOBS = {
    job.__name__: job
    for job in (
        equals_a_real_world,
        tensors_without_contents,
        what_is_refused,
        what_only_a_peer_knows,
        what_is_counted,
        a_large_group_is_cheap,
        megatron_layout,
    )
}


def run(job: dict[str, Any], rank: int) -> None:
    JOBS[job["name"]](rank)
