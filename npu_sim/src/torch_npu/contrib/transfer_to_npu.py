# SPDX-License-Identifier: Apache-2.0
"""``from torch_npu.contrib import transfer_to_npu``: code written for CUDA runs on npu, in the whole process.

Importing this module (1) puts ``torch.npu``'s functions in the place of ``torch.cuda``'s, (2) makes functions that take
a device read "cuda" as "npu", (3) makes torch.distributed read "nccl" as "hccl", (4) switches TorchScript off, as the
real module does. It cannot be undone.
"""

import functools
import types
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.fsdp
import torch.utils._device
import torch.utils._triton
from torch_npu import npu
from torch_npu.npu import devices

# torch lists its device constructors by identity, once. Let it do so before they are wrapped, or
# `with torch.device("npu")` stops to have an effect.
torch.utils._device._device_constructors()

_KEYWORDS = ("device", "device_type", "map_location", "device_id")

_FACTORIES = [
    "arange",
    "as_tensor",
    "asarray",
    "empty",
    "empty_like",
    "empty_quantized",
    "empty_strided",
    "eye",
    "from_file",
    "frombuffer",
    "full",
    "full_like",
    "hann_window",
    "linspace",
    "logspace",
    "normal",
    "ones",
    "ones_like",
    "rand",
    "rand_like",
    "randint",
    "randint_like",
    "randn",
    "randn_like",
    "randperm",
    "range",
    "scalar_tensor",
    "sparse_coo_tensor",
    "tensor",
    "tril_indices",
    "triu_indices",
    "zeros",
    "zeros_like",
    "autocast",
    "load",
    "set_default_device",
]
_TENSOR_METHODS = [
    "new_empty",
    "new_empty_strided",
    "new_full",
    "new_ones",
    "new_tensor",
    "new_zeros",
    "pin_memory",
    "to",
]
_MODULE_METHODS = ["to", "to_empty"]
_SUBMODULES = ("amp", "amp.autocast_mode", "amp.common", "amp.grad_scaler", "memory", "random", "streams")


def _device(value: Any, integers: bool = False) -> Any:
    """``value`` with cuda replaced by npu; integers are device indices where ``integers`` says so."""
    if isinstance(value, str):
        return value.replace("cuda", "npu")
    if isinstance(value, torch.device):
        return torch.device("npu", value.index) if value.type == "cuda" else value
    if isinstance(value, dict):  # map_location
        return {_device(key): _device(item) for key, item in value.items()}
    if integers and type(value) is int:
        return f"npu:{value}"
    return value


def _reads_cuda_as_npu(function: Callable) -> Callable:
    integers = function.__name__ in ("to", "to_empty")

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        if args:
            args = tuple(
                _device(arg, integers)
                if isinstance(arg, (str, torch.device)) or (integers and type(arg) is int)
                else arg
                for arg in args
            )
        for key in _KEYWORDS:
            if kwargs.get(key) is not None:
                kwargs[key] = _device(kwargs[key], integers=True)
        return function(*args, **kwargs)

    return wrapper


def _reads_nccl_as_hccl(function: Callable) -> Callable:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        args = tuple(arg.replace("nccl", "hccl") if isinstance(arg, str) else arg for arg in args)
        if isinstance(kwargs.get("backend"), str):
            kwargs["backend"] = kwargs["backend"].replace("nccl", "hccl")
        return function(*args, **kwargs)

    return wrapper


def _wrap(owner: Any, names: Iterable[str], wrap: Callable[[Callable], Callable] = _reads_cuda_as_npu) -> None:
    for name in names:
        if hasattr(owner, name):
            setattr(owner, name, wrap(getattr(owner, name)))


def _inner(module: Any, path: str) -> Any:
    for part in path.split("."):
        module = getattr(module, part, None)
    return module


class _CudaModule(types.ModuleType):
    """``torch.cuda``. torch's broadcast calls ``get_device_capability(device)`` for tensors with ``is_cuda``, and
    MindSpeed replaces that function by one without parameters: whatever is assigned there is made to accept a device.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "get_device_capability":
            value = _ignores_device(value)
        super().__setattr__(name, value)


def _ignores_device(function: Callable) -> Callable:
    @functools.wraps(function)
    def get_device_capability(device: Any = None) -> Any:
        return function()

    return get_device_capability


def _replace_cuda() -> None:
    for path in ("", *_SUBMODULES):
        source = _inner(npu, path) if path else npu
        target = _inner(torch.cuda, path) if path else torch.cuda
        if source is None or target is None:
            continue
        for name, value in vars(source).items():
            if not name.startswith("__") and not isinstance(value, types.ModuleType):
                setattr(target, name, value)
    torch.cuda.__class__ = _CudaModule
    torch.cuda.get_device_capability = npu.get_device_capability
    torch.cuda.DoubleTensor = npu.tensor_types.TENSOR_TYPES["FloatTensor"]  # the device computes in float32 at most
    devices._accept_cuda()


def _replace_generator() -> None:
    """``torch.Generator(device="cuda")``. It stays a class: torch uses it in annotations and isinstance."""
    real = torch.Generator

    class _Meta(type):
        def __call__(cls, device: Any = "cpu") -> torch.Generator:
            return real(_device(device, integers=True))

        def __instancecheck__(cls, instance: object) -> bool:
            return isinstance(instance, real)

        def __subclasscheck__(cls, subclass: type) -> bool:
            return issubclass(subclass, real)

    torch.Generator = _Meta("Generator", (), {"__doc__": real.__doc__})


def _replace_distributed() -> None:
    for module in (dist, dist.distributed_c10d):
        _wrap(module, ["init_process_group", "new_group"], _reads_nccl_as_hccl)
        module.is_nccl_available = dist.is_hccl_available
    _wrap(dist.ProcessGroup, ["_get_backend"])
    _wrap(torch.distributed.fsdp.FullyShardedDataParallel, ["__init__"])
    _wrap(dist.device_mesh, ["init_device_mesh"])
    _wrap(dist.device_mesh.DeviceMesh, ["__init__"])


def _switch_torchscript_off() -> None:
    torch.jit.script = lambda obj, *args, **kwargs: obj
    torch.jit.script_method = lambda function, *args, **kwargs: function


def _transfer() -> None:
    _replace_cuda()
    _wrap(torch, _FACTORIES)
    _wrap(torch.Tensor, _TENSOR_METHODS)
    _wrap(torch.nn.Module, _MODULE_METHODS)
    torch.Tensor.cuda = torch.Tensor.npu
    torch.Tensor.is_cuda = torch.Tensor.is_npu
    torch.nn.Module.cuda = torch.nn.Module.npu
    torch.UntypedStorage.__new__ = _reads_cuda_as_npu(torch.UntypedStorage.__new__)
    _wrap(torch.utils._device.DeviceContext, ["__init__"])
    _replace_generator()
    _replace_distributed()
    _switch_torchscript_off()
    torch.utils._triton.has_triton = lambda: False


if not getattr(torch, "_npu_sim_transferred", False):
    torch._npu_sim_transferred = True  # reloading must not wrap twice
    _transfer()
