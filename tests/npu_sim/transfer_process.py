# SPDX-License-Identifier: Apache-2.0
"""The checks of test_transfer_to_npu.py, in a process where CUDA code runs on npu; prints {check: null or error}."""

import json
import sys
import traceback

import torch
from torch_npu.contrib import transfer_to_npu  # noqa: F401

X = torch.arange(4.0, device="cuda")


def tensors_are_on_npu():
    assert X.device == torch.device("npu:0") and X.is_cuda and not X.cpu().is_cuda
    for moved in (X.cpu().cuda(), X.cpu().to("cuda"), X.cpu().to(0), X.cpu().to(torch.device("cuda")), X.new_zeros(1)):
        assert moved.device == torch.device("npu:0")
    assert X.to("cuda:1").device == torch.device("npu:1") == X.cuda(1).device
    assert torch.zeros_like(X, device="cuda:2").device.index == 2


def modules_are_on_npu():
    assert torch.nn.Linear(2, 2).cuda().weight.is_npu and torch.nn.Linear(2, 2).to("cuda").weight.is_npu
    with torch.device("meta"):
        meta = torch.nn.Linear(2, 2)
    assert meta.to_empty(device="cuda").weight.is_npu


def device_contexts_still_work():
    for name, expected in (("npu", "npu:0"), ("cuda:1", "npu:1"), ("cpu", "cpu")):
        with torch.device(name):
            assert torch.zeros(2).device == torch.device(expected), name
    with torch.cuda.device("cuda:3"):
        assert torch.cuda.current_device() == 3 and torch.empty(1, device="cuda").device.index == 3
    assert torch.cuda.is_available() and torch.cuda.device_count() == torch.npu.device_count()


def generators_stay_a_class():
    generator = torch.Generator(device="cuda").manual_seed(1)
    assert isinstance(torch.Generator, type) and isinstance(generator, torch.Generator)
    assert generator.device.type == "npu" and torch.Generator().device.type == "cpu"
    assert (torch.Generator | None) is not None
    assert torch.rand(2, device="cuda", generator=generator).is_npu


def random_states_by_cuda_names():
    state = torch.cuda.get_rng_state("cuda")
    first = torch.randn(3, device="cuda")
    torch.cuda.random.set_rng_state(state, device=torch.device("cuda"))
    assert torch.equal(first, torch.randn(3, device="cuda"))
    torch.cuda.default_generators[0].set_state(state)
    assert torch.equal(first, torch.randn(3, device="cuda"))


def meshes_are_on_npu():
    import tempfile

    import torch.distributed as dist

    with tempfile.NamedTemporaryFile() as file:
        dist.init_process_group("nccl", init_method=f"file://{file.name}", rank=0, world_size=1)
        try:
            from_group = dist.device_mesh.DeviceMesh.from_group(dist.group.WORLD, "cuda")
            made = dist.device_mesh.init_device_mesh("cuda", (1,))
            assert from_group.device_type == made.device_type == "npu"
        finally:
            dist.destroy_process_group()


def capability_never_breaks_broadcast():
    import tempfile

    import torch.distributed as dist

    with tempfile.NamedTemporaryFile() as file:
        dist.init_process_group("nccl", init_method=f"file://{file.name}", rank=0, world_size=1)
        assert dist.get_backend() == "hccl" and dist.is_nccl_available()
        for replacement in (None, lambda: (8, 0)):  # MindSpeed replaces it by a function without parameters
            if replacement:
                torch.cuda.get_device_capability = replacement
            dist.broadcast(X.clone(), 0)
            dist.broadcast(X.to(torch.float8_e4m3fn), 0)
        assert torch.cuda.get_device_capability("cuda:0") == (8, 0)
        assert dist.get_backend(dist.new_group([0], backend="nccl")) == "hccl"
        dist.destroy_process_group()


def memory_and_streams_by_cuda_names():
    assert torch.cuda.memory_allocated("cuda:0") == torch.npu.memory_allocated(0) > 0
    assert torch.cuda.mem_get_info(torch.device("cuda"))[1] == torch.cuda.get_device_properties("cuda").total_memory
    assert torch.cuda.memory_stats()["num_ooms"] == 0
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        assert torch.cuda.current_stream() == stream
    torch.cuda.synchronize("cuda:0")
    torch.cuda.empty_cache()


def mixed_precision_by_cuda_names():
    with torch.autocast("cuda", dtype=torch.bfloat16):
        assert (X[None] @ X[:, None]).dtype == torch.bfloat16
    assert torch.cuda.amp.GradScaler().get_scale() == 65536.0
    assert isinstance(torch.cuda.FloatTensor([1.0]), torch.cuda.FloatTensor)


def loading_maps_cuda_to_npu():
    import io

    file = io.BytesIO()
    torch.save(X.cpu(), file)
    for target, expected in (("cuda:1", "npu:1"), ({"cpu": "cuda:2"}, "npu:2"), ("cpu", "cpu")):
        file.seek(0)
        assert torch.load(file, map_location=target).device == torch.device(expected)


def torchscript_is_off_and_a_second_import_does_nothing():
    function = torch.jit.script(abs)
    assert function is abs
    before = torch.ones
    sys.modules.pop("torch_npu.contrib.transfer_to_npu")
    import torch_npu.contrib.transfer_to_npu as again  # noqa: F401

    assert torch.ones is before


def dynamo_imports():
    import torch._dynamo
    import torch._inductor

    assert not torch.utils._triton.has_triton()


CHECKS = [
    tensors_are_on_npu,
    modules_are_on_npu,
    device_contexts_still_work,
    generators_stay_a_class,
    random_states_by_cuda_names,
    meshes_are_on_npu,
    capability_never_breaks_broadcast,
    memory_and_streams_by_cuda_names,
    mixed_precision_by_cuda_names,
    loading_maps_cuda_to_npu,
    torchscript_is_off_and_a_second_import_does_nothing,
    dynamo_imports,
]

if __name__ == "__main__":
    results: dict[str, str | None] = {}
    for check in CHECKS:
        try:
            check()
            results[check.__name__] = None
        except Exception:
            results[check.__name__] = traceback.format_exc()
    print(json.dumps(results))
