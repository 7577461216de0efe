# SPDX-License-Identifier: Apache-2.0
"""One rank of the checks in test_hccl.py: `python hccl_process.py RANK SIZE PORT OUT`.

Runs every check on all ranks in the same order and writes {check: null or error} as JSON.
"""

import json
import os
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
import torch_npu
from torch.distributed import _coalescing_manager
from torch_npu.limits import Level, set_level
from torch_npu.limits.fact import CollectiveTypes
from torch_npu.limits.table import types

RANK, SIZE = int(sys.argv[1]), int(sys.argv[2])
OTHER = 1 - RANK
DEVICE = torch.device("npu", RANK)


def full(value: float, *size: int, **options) -> torch.Tensor:
    return torch.full(size, float(value), device=DEVICE, **options)


def allreduce():
    for dtype in (torch.float32, torch.bfloat16, torch.int64, torch.complex64):
        x = full(RANK + 1, 3).to(dtype)
        dist.all_reduce(x)
        assert x.tolist() == [3, 3, 3], (dtype, x)
    x = full(RANK, 2)
    dist.all_reduce(x, op=dist.ReduceOp.MAX)
    assert x.tolist() == [1, 1]
    for dtype in (torch.int16, torch.int8, torch.uint8):  # which wrap
        x = torch.tensor([RANK + 1, torch.iinfo(dtype).max], dtype=dtype, device=DEVICE)
        dist.all_reduce(x)
        assert x.tolist() == [3, (torch.tensor([0], dtype=dtype) + torch.iinfo(dtype).max * 2).item()], (dtype, x)
    both = torch.tensor([True, RANK == 0, False], device=DEVICE)
    for op, expected in (("SUM", [1, 1, 0]), ("MAX", [1, 1, 0]), ("MIN", [1, 0, 0]), ("PRODUCT", [1, 0, 0])):
        x = both.clone()
        dist.all_reduce(x, op=getattr(dist.ReduceOp, op))
        assert x.dtype == torch.bool and x.tolist() == expected, (op, x)
    options = dist.AllreduceOptions()
    options.reduceOp = dist.ReduceOp.PRODUCT
    message = "torch.complex64 is not supported in reductions by PRODUCT"
    expect(message, dist.group.WORLD._get_backend(DEVICE).allreduce, [full(1, 2).to(torch.complex64)], options)


def average():
    x = full(RANK, 4, dtype=torch.bfloat16)
    dist.all_reduce(x, op=dist.ReduceOp.AVG)
    assert x.tolist() == [0.5] * 4
    y = full(0, 2)
    dist.reduce_scatter_tensor(y, torch.arange(4.0, device=DEVICE) + RANK, op=dist.ReduceOp.AVG)
    assert y.tolist() == [2 * RANK + 0.5, 2 * RANK + 1.5]
    y = full(0, RANK + 1)
    dist.reduce_scatter(y, [full(RANK, 1), full(RANK, 2)], op=dist.ReduceOp.AVG)
    assert y.tolist() == [0.5] * (RANK + 1)
    try:
        dist.all_reduce(full(1, 2, dtype=torch.int64), op=dist.ReduceOp.AVG)
        raise AssertionError("integers were averaged")
    except RuntimeError as error:
        assert "AVG needs a floating dtype" in str(error)


def asynchronous():
    x = full(RANK + 1, 3)
    work = dist.all_reduce(x, op=dist.ReduceOp.AVG, async_op=True)
    work.wait()
    work.wait()  # once is enough, twice does no harm
    assert x.tolist() == [1.5] * 3 and work.is_completed()
    y = full(RANK + 1, 3)
    assert dist.all_reduce(y, async_op=True).get_future().wait()[0].tolist() == [3.0] * 3


def broadcast():
    for dtype in (torch.float32, torch.bool, torch.int16, torch.float8_e4m3fn):
        x = full(RANK, 2).to(dtype)
        dist.broadcast(x, 1)
        assert x.float().tolist() == [1, 1], dtype
    dist.broadcast(full(0, 0), 0)


def a_broadcast_of_another_tensor_is_refused():
    for mine, other in ((full(1, 4), full(1, 4, dtype=torch.float64)), (full(1, 4), full(1, 4, dtype=torch.int32)),
                        (full(1, 4), full(1, 2)), (full(1, 4), full(1, 0))):  # fmt: skip
        for root in range(SIZE):
            x = mine if root == RANK else other
            if root == RANK:
                dist.broadcast(x, root)
            else:
                message = f"rank {root} sends 4 elements of torch.float32, this rank expects {x.numel()} of torch."
                expect(message, dist.broadcast, x, root)
    x = full(1, 2) if RANK == 0 else full(1, 2, dtype=torch.float64)
    work = dist.broadcast(x, 0, async_op=True)
    if RANK == 0:
        work.wait()
    else:
        expect("rank 0 sends 2 elements of torch.float32, this rank expects 2 of torch.float64", work.wait)
    broadcast()  # and the group still works


def reduce():
    x = full(RANK + 1, 2)
    dist.reduce(x, 1, op=dist.ReduceOp.AVG)
    assert x.tolist() == ([1.5, 1.5] if RANK == 1 else [1, 1])


def all_gather_even():
    x = torch.arange(4, device=DEVICE, dtype=torch.int16).view(2, 2) + 10 * RANK
    outputs = [torch.empty(2, 2, dtype=torch.int16, device=DEVICE).t() for _ in range(SIZE)]
    dist.all_gather(outputs, x)
    assert [o.tolist() for o in outputs] == [[[0, 1], [2, 3]], [[10, 11], [12, 13]]]
    message = "input and output must have one dtype, got torch.int16 and torch.int32"
    expect(message, dist.group.WORLD._get_backend(DEVICE).allgather, [[o.int() for o in outputs]], [x])
    y = torch.empty(4, 2, dtype=torch.int16, device=DEVICE)
    dist.all_gather_into_tensor(y, x)
    assert y.tolist() == [[0, 1], [2, 3], [10, 11], [12, 13]]


def all_gather_uneven():
    outputs = [torch.empty(3 * rank, device=DEVICE) for rank in range(SIZE)]
    dist.all_gather(outputs, full(RANK, 3 * RANK))
    assert [o.tolist() for o in outputs] == [[], [1, 1, 1]]
    outputs = [torch.empty(rank + 1, 2, device=DEVICE, dtype=torch.bfloat16) for rank in range(SIZE)]
    dist.all_gather(outputs, full(RANK, RANK + 1, 2, dtype=torch.bfloat16))
    assert [o.tolist() for o in outputs] == [[[0, 0]], [[1, 1], [1, 1]]]
    try:
        dist.all_gather([torch.empty(1, device=DEVICE) for _ in range(SIZE)], full(1, 2))
        raise AssertionError("wrong sizes were accepted")
    except RuntimeError as error:
        assert "this rank gives 8 bytes, but its place in the output holds 4" in str(error)


def all_to_all_uneven():
    inputs = [full(10 * RANK + rank, RANK + 2 * rank, 2) for rank in range(SIZE)]
    outputs = [torch.empty(rank + 2 * RANK, 2, device=DEVICE) for rank in range(SIZE)]
    dist.all_to_all(outputs, inputs)
    for rank, output in enumerate(outputs):
        assert output.tolist() == [[10 * rank + RANK] * 2] * (rank + 2 * RANK)
    x = torch.arange(6.0, device=DEVICE).view(3, 2) + 100 * RANK
    y = torch.empty(2 if RANK == 0 else 4, 2, device=DEVICE)
    dist.all_to_all_single(y, x, [1, 1] if RANK == 0 else [2, 2], [1, 2])
    assert y.tolist() == ([[0, 1], [100, 101]] if RANK == 0 else [[2, 3], [4, 5], [102, 103], [104, 105]])
    z = torch.empty(4, dtype=torch.int64, device=DEVICE)
    dist.all_to_all_single(z, torch.arange(4, device=DEVICE) + 10 * RANK)
    assert z.tolist() == [2 * RANK, 2 * RANK + 1, 10 + 2 * RANK, 11 + 2 * RANK]


def reduce_scatter():
    x = torch.arange(4.0, device=DEVICE) + RANK
    kept = x.clone()
    y = torch.empty(2, device=DEVICE)
    dist.reduce_scatter_tensor(y, x)
    assert y.tolist() == [4 * RANK + 1, 4 * RANK + 3] and torch.equal(x, kept)
    inputs = [full(RANK + 1, 1), full(RANK + 2, 3)]
    y = torch.empty(1 if RANK == 0 else 3, device=DEVICE)
    dist.reduce_scatter(y, inputs)
    assert y.tolist() == ([3] if RANK == 0 else [5, 5, 5]) and inputs[0].item() == RANK + 1
    y = torch.empty(1, dtype=torch.int16, device=DEVICE)
    dist.reduce_scatter_tensor(y, torch.tensor([RANK, 7], dtype=torch.int16, device=DEVICE))
    assert y.item() == (1 if RANK == 0 else 14)
    dist.reduce_scatter(y, [torch.tensor([n + RANK], dtype=torch.int16, device=DEVICE) for n in (0, 7)])
    assert y.item() == (1 if RANK == 0 else 15)


def gather_and_scatter():  # torch_npu replaces torch.distributed.gather, since the backend has none
    torch_npu.sim.reset_counts()
    outputs = [torch.empty(2 + rank, device=DEVICE) for rank in range(SIZE)] if RANK == 0 else None
    dist.gather(full(RANK, 2 + RANK), outputs, dst=0)
    assert RANK or [o.tolist() for o in outputs] == [[0, 0], [1, 1, 1]]
    assert torch_npu.sim.collective_counts()["allgather"].calls == 1
    on_cpu = [torch.empty(1) for _ in range(SIZE)] if RANK == 1 else None
    dist.gather(torch.full((1,), float(RANK)), on_cpu, dst=1)
    assert RANK == 0 or on_cpu == [0, 1]
    objects = [None] * SIZE if RANK == 1 else None
    dist.gather_object({"rank": RANK}, objects, dst=1, group=dist.new_group(backend="hccl"))
    assert RANK == 0 or objects == [{"rank": 0}, {"rank": 1}]
    backend = dist.group.WORLD._get_backend(DEVICE)
    expect("hccl gather: HCCL has none", backend.gather, [[full(0, 2), full(0, 2)]] if RANK == 0 else [], [full(1, 2)])
    y = torch.empty(2, dtype=torch.bool, device=DEVICE)
    dist.scatter(y, [full(rank, 2).bool() for rank in range(SIZE)] if RANK == 1 else None, src=1)
    assert y.tolist() == [bool(RANK)] * 2


def point_to_point():
    received = torch.empty(3, 2, device=DEVICE)
    sends = [dist.P2POp(dist.isend, full(RANK, 3, 2), OTHER), dist.P2POp(dist.irecv, received, OTHER)]
    for work in dist.batch_isend_irecv(sends):
        work.wait()
    assert received.tolist() == [[OTHER] * 2] * 3
    if RANK == 0:
        dist.send(full(7, 2), 1)
    else:
        x = torch.empty(2, device=DEVICE)
        assert dist.recv(x, 0) == 0 and x.tolist() == [7, 7]
    expect("HCCL receives from a named rank only", dist.recv, torch.empty(2, device=DEVICE))


def what_hccl_cannot_reach_is_refused():
    transposed = torch.ones(2, 3, device=DEVICE).t()
    for call in (lambda x: dist.all_reduce(x), lambda x: dist.broadcast(x, 0), lambda x: dist.send(x, OTHER),
                 lambda x: dist.all_gather_into_tensor(torch.empty(6, 2, device=DEVICE), x)):  # fmt: skip
        expect("expected contiguous tensors, got sizes [3, 2] with strides [1, 3]", call, transposed)
    elsewhere = torch.ones(2, device=f"npu:{OTHER}")
    expect(f"this group works on npu:{RANK}, got a tensor on npu:{OTHER}", dist.all_reduce, elsewhere)
    group = dist.new_group(backend="hccl")
    if RANK == 0:
        dist.all_reduce(full(1, 0), group=group)  # which takes npu:0 and waits for nobody
    dist.barrier()
    if RANK == 1:
        expect(
            "rank 1 brings a tensor on npu:0, which is the device of another rank",
            dist.all_reduce,
            elsewhere,
            group=group,
        )


def lazily_conjugated_and_negated_tensors():
    x = torch.complex(full(1, 2), full(RANK + 1, 2))
    conjugated, negated = x.conj(), x.conj().imag
    assert conjugated.is_conj() and negated.is_neg()
    gathered = [torch.empty(2, dtype=torch.complex64, device=DEVICE) for _ in range(SIZE)]
    backend = dist.group.WORLD._get_backend(DEVICE)  # torch.distributed refuses conjugates itself (view_as_real)
    backend.allgather([gathered], [conjugated]).wait()
    assert [g[0].item() for g in gathered] == [1 - 1j, 1 - 2j]
    backend.allgather([[g.conj() for g in gathered]], [conjugated]).wait()
    assert [g[0].item() for g in gathered] == [1 + 1j, 1 + 2j]
    backend.allreduce([conjugated]).wait()
    assert x.tolist() == [2 + 3j] * 2
    negated = torch._neg_view(full(RANK + 1, 2))
    dist.all_reduce(negated)
    assert negated.tolist() == [-3, -3]
    dist.broadcast(negated := torch._neg_view(full(RANK + 1, 2)), 1)
    assert negated.tolist() == [-2, -2]


def coalescing():
    a, b = full(1, 2), full(1, 3)
    with _coalescing_manager(async_ops=True) as manager:
        dist.all_reduce(a)
        dist.all_reduce(b)
    manager.wait()
    assert a.tolist() == [2, 2] and b.tolist() == [2, 2, 2]
    gathered, scattered = [torch.empty(4, device=DEVICE) for _ in "ab"], [torch.empty(1, device=DEVICE) for _ in "ab"]
    with _coalescing_manager(device=DEVICE):
        for output in gathered:
            dist.all_gather_into_tensor(output, full(RANK, 2))
    with _coalescing_manager():
        for output in scattered:
            dist.reduce_scatter_tensor(output, torch.arange(2.0, device=DEVICE))
    assert all(o.tolist() == [0, 0, 1, 1] for o in gathered) and all(o.item() == 2 * RANK for o in scattered)


def objects_and_barrier():
    objects = [None] * SIZE
    dist.all_gather_object(objects, {"rank": RANK})
    assert objects == [{"rank": 0}, {"rank": 1}]
    listed = [RANK]
    dist.broadcast_object_list(listed, src=1, device=DEVICE)
    assert listed == [1]
    dist.barrier()


def cpu_tensors_are_refused_by_name():
    backend = dist.group.WORLD._get_backend(torch.device("npu"))
    try:
        backend.allreduce([torch.ones(1)])
        raise AssertionError("a CPU tensor was accepted")
    except RuntimeError as error:
        assert "hccl allreduce: expected npu tensors, got one on cpu" in str(error)
    group = dist.new_group(backend="hccl")
    try:
        dist.all_reduce(torch.ones(1), group=group)
        raise AssertionError("a CPU tensor was accepted")
    except RuntimeError as error:
        assert "cpu" in str(error)


def expect(message: str, call, *arguments, **options) -> None:
    try:
        call(*arguments, **options)
    except Exception as error:
        assert message in str(error), error
    else:
        raise AssertionError(f"accepted; expected: {message}")


@contextmanager
def standard_error() -> Iterator[list[str]]:
    """The lines that C++ writes to stderr meanwhile; complete when the context is left."""
    lines: list[str] = []
    kept = os.dup(2)
    with tempfile.TemporaryFile("w+") as file:
        os.dup2(file.fileno(), 2)
        try:
            yield lines
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            lines += file.read().splitlines()


def tables_of_refusals():
    torch_npu._sim.refuse_collective("allreduce", [torch.float64], [], "HCCL sums no float64")
    torch_npu._sim.refuse_collective("allreduce", [], ["BAND", "BOR"], "HCCL has no bitwise reductions")
    torch_npu._sim.refuse_collective("reduce", [torch.int64], ["PRODUCT"], "no int64 products")
    torch_npu._sim.refuse_collective("broadcast", [torch.int8], [], "not documented", warn=True)
    try:
        message = "HCCL sums no float64 (found torch.float64 reduced by SUM in allreduce)"
        expect(message, dist.all_reduce, full(1, 2, dtype=torch.float64))
        message = "HCCL has no bitwise reductions (found torch.int32 reduced by BOR in allreduce)"
        expect(message, dist.all_reduce, full(1, 2, dtype=torch.int32), op=dist.ReduceOp.BOR)
        expect("no int64 products", dist.reduce, full(1, 2, dtype=torch.int64), 0, op=dist.ReduceOp.PRODUCT)
        for allowed in (torch.float32, torch.int64):
            dist.all_reduce(full(1, 2, dtype=allowed))
            dist.reduce(full(1, 2, dtype=allowed), 0)
        with standard_error() as lines:
            for _ in range(2):
                dist.broadcast(full(1, 2, dtype=torch.int8), 0)
        assert len(lines) == 1 and "not documented (found torch.int8 in broadcast)" in lines[0], lines
    finally:
        torch_npu._sim.clear_refusals()
    dist.all_reduce(full(1, 2, dtype=torch.float64))


def groups_by_name():
    options = torch_npu._C._distributed_c10d.ProcessGroupHCCL.Options()
    options.hccl_config = {"hccl_buffer_size": 200}
    options._timeout = timedelta(seconds=20)
    group = dist.new_group([0, 1], backend="hccl", pg_options=options)
    backend = group._get_backend(DEVICE)
    name = backend.get_hccl_comm_name(RANK)
    assert name == backend.get_hccl_comm_name(RANK)
    assert name != dist.group.WORLD._get_backend(DEVICE).get_hccl_comm_name(RANK)
    found = torch_npu.distributed.group_by_comm_name(name)
    assert found is backend and found.size() == 2
    x = full(1, 1)
    found.allreduce([x]).wait()
    assert x.item() == 2
    try:
        torch_npu.distributed.group_by_comm_name("nobody")
        raise AssertionError("a group without a name was found")
    except RuntimeError as error:
        assert "no hccl group is named 'nobody'" in str(error)


def a_group_made_by_hand():  # as vLLM-Ascend does
    from torch._C._distributed_c10d import ProcessGroup

    store = dist.PrefixStore("by_hand", dist.distributed_c10d._get_default_store())
    options = torch_npu._C._distributed_c10d.ProcessGroupHCCL.Options()
    options._timeout = timedelta(seconds=20)
    backend = torch_npu._C._distributed_c10d.ProcessGroupHCCL(store, RANK, SIZE, options)
    backend._set_sequence_number_for_group()
    group = ProcessGroup(store, RANK, SIZE)
    group._register_backend(torch.device("npu"), ProcessGroup.BackendType.CUSTOM, backend)
    x = full(1, 2)
    group.allreduce([x]).wait()
    assert x.tolist() == [2, 2]


def traffic_is_counted():
    torch_npu.sim.reset_counts()
    dist.all_reduce(full(1, 256))
    dist.all_to_all_single(torch.empty(4, device=DEVICE), full(1, 4))
    counts = torch_npu.sim.collective_counts()
    assert (counts["allreduce"].calls, counts["allreduce"].bytes) == (1, 1024)
    assert (counts["alltoall_base"].calls, counts["alltoall_base"].bytes) == (1, 16)


def functional_collectives():
    import torch.distributed._functional_collectives as functional

    x = functional.all_reduce(full(RANK + 1, 2), "sum", dist.group.WORLD)
    assert x.tolist() == [3, 3]
    y = functional.all_gather_tensor(full(RANK, 1), 0, dist.group.WORLD)
    assert y.tolist() == [0, 1]


def data_parallel_training():
    torch.manual_seed(0)
    model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(2, 1).to(DEVICE))
    model(full(RANK + 1, 1, 2)).sum().backward()
    assert model.module.weight.grad.tolist() == [[1.5, 1.5]]


def what_is_through_has_given_its_bytes_back():
    before = torch.npu.memory_allocated()
    for _ in range(1000):
        x = full(RANK, 2 * 4096)
        y = torch.empty_like(x)
        dist.all_to_all_single(y, x)
        del x, y
        assert torch.npu.memory_allocated() == before


def groups_share_the_thread_that_looks_for_work():
    def threads() -> list[str]:
        return [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]

    before = threads().count("gloo_tcp_loop")
    groups = [dist.new_group(backend="hccl") for _ in range(3)]
    for group in groups:
        x = full(RANK + 1, 2)
        dist.all_reduce(x, group=group)
        assert x.tolist() == [3, 3]
    assert before and threads().count("gloo_tcp_loop") == before, threads()


def the_strict_level_refuses_what_hccl_does_not_take():
    def halves(x: torch.Tensor) -> list[torch.Tensor]:
        return list(x.split(1))

    calls = {
        "allreduce": lambda x, op: dist.all_reduce(x, op=op),
        "reduce": lambda x, op: dist.reduce(x, 0, op=op),
        "reduce_scatter": lambda x, op: dist.reduce_scatter(x[:1].clone(), halves(x), op=op),
        "_reduce_scatter_base": lambda x, op: dist.reduce_scatter_tensor(x[:1].clone(), x, op=op),
        "broadcast": lambda x, op: dist.broadcast(x, 0),
        "allgather": lambda x, op: dist.all_gather(halves(x), x[:1].clone()),
        "_allgather_base": lambda x, op: dist.all_gather_into_tensor(x, x[:1].clone()),
        "scatter": lambda x, op: dist.scatter(x[:1].clone(), halves(x) if RANK == 0 else None, 0),
        "alltoall_base": lambda x, op: dist.all_to_all_single(torch.empty_like(x), x),
        "alltoall": lambda x, op: dist.all_to_all(halves(torch.empty_like(x)), halves(x)),
        "send": lambda x, op: dist.send(x, OTHER),
        "recv": lambda x, op: dist.recv(x, OTHER),
    }
    rows = [row for row in types() if isinstance(row, CollectiveTypes)]
    assert {row.operator for row in rows} == {f"hccl {name}" for name in calls}
    set_level(Level.STRICT)
    try:
        for row in rows:
            name = row.operator.removeprefix("hccl ")
            # torch.distributed hands complex numbers over as pairs of real ones in some collectives.
            refused = row.refused - {torch.complex32, torch.complex64, torch.complex128}
            outside = [(full(1, 2).to(dtype), "SUM") for dtype in refused & {torch.float64, torch.uint16, torch.uint8}]
            if row.reductions:
                outside = [(full(1, 2, dtype=torch.int32), op) for op in row.reductions if op != "PREMUL_SUM"]
            assert outside
            for x, op in outside:
                try:
                    calls[name](x, getattr(dist.ReduceOp, op))
                    raise AssertionError(f"{row.operator} of {x.dtype} by {op} was computed")
                except RuntimeError as error:
                    assert str(error).startswith(row.rule()), error
            if name not in ("send", "recv"):
                calls[name](full(1, 2), dist.ReduceOp.AVG)
    finally:
        set_level(Level.OFF)


CHECKS = [
    allreduce,
    average,
    asynchronous,
    broadcast,
    a_broadcast_of_another_tensor_is_refused,
    reduce,
    all_gather_even,
    all_gather_uneven,
    all_to_all_uneven,
    reduce_scatter,
    gather_and_scatter,
    point_to_point,
    what_hccl_cannot_reach_is_refused,
    lazily_conjugated_and_negated_tensors,
    coalescing,
    objects_and_barrier,
    cpu_tensors_are_refused_by_name,
    tables_of_refusals,
    the_strict_level_refuses_what_hccl_does_not_take,
    groups_by_name,
    a_group_made_by_hand,
    traffic_is_counted,
    what_is_through_has_given_its_bytes_back,
    groups_share_the_thread_that_looks_for_work,
    functional_collectives,
    data_parallel_training,
]


def main() -> None:
    torch.npu.set_device(RANK)
    dist.init_process_group(
        "cpu:gloo,npu:hccl",
        init_method=f"tcp://127.0.0.1:{sys.argv[3]}",
        rank=RANK,
        world_size=SIZE,
        timeout=timedelta(seconds=40),
    )
    results = {}
    for check in CHECKS:
        try:
            check()
            results[check.__name__] = None
        except Exception:
            results[check.__name__] = traceback.format_exc()
    Path(sys.argv[4]).write_text(json.dumps(results))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
