# SPDX-License-Identifier: Apache-2.0
"""Devices: which there are, which one is current, what they are called."""

from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch
from torch_npu import _sim
from torch_npu._version import SOC_NAME, SOC_VERSION

_device_types = {"npu"}


def index_of(device: Any = None) -> int:
    """Logical index of a device given as None (current), int, "npu:1" or torch.device; RuntimeError on other kinds."""
    if isinstance(device, str):
        device = torch.device(device)
    if isinstance(device, torch.device):
        if device.type not in _device_types:
            raise ValueError(f"expected an npu device, got {device}")
        device = device.index
    if device is None:
        return _sim.current_device()
    if not isinstance(device, int):
        raise TypeError(f"expected an npu device (int, str, torch.device or None), got {type(device).__name__}")
    return _sim.current_device() if device < 0 else device


def _accept_cuda() -> None:
    """From now on "cuda:1" means npu:1 in every function of ``torch.npu`` (transfer_to_npu)."""
    _device_types.add("cuda")


def init() -> None:
    """Read the environment and fix the configuration; otherwise the first use does it."""
    _sim.init()


_lazy_init = init


def is_initialized() -> bool:
    return _sim.is_initialized()


def _lazy_call(function: Any, **kwargs: Any) -> None:
    """Call the function at once: there is no driver to wait for."""
    function()


def _is_in_bad_fork() -> bool:
    return False  # a forked child starts with empty devices of its own


def is_available() -> bool:
    return _sim.device_count() > 0


def device_count() -> int:
    return _sim.device_count()


def current_device() -> int:
    return _sim.current_device()


def set_device(device: Any) -> None:
    """Make a device current for this thread; RuntimeError if it does not exist."""
    _sim.set_device(index_of(device))


def _exchange_device(device: int) -> int:
    previous = _sim.current_device()
    if device >= 0:
        _sim.set_device(device)
    return previous


_maybe_exchange_device = _exchange_device


class device:
    """Context manager: another current device inside. None and negative indices change nothing."""

    def __init__(self, device: Any) -> None:
        self.idx = -1 if device is None else index_of(device)
        self.prev_idx = -1

    def __enter__(self) -> "device":
        self.prev_idx = _exchange_device(self.idx)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        _exchange_device(self.prev_idx)


class device_of(device):
    """Context manager: the device of a tensor or storage is current inside; nothing changes for CPU ones."""

    def __init__(self, obj: Any) -> None:
        super().__init__(obj.get_device() if obj.device.type == "npu" else None)


def synchronize(device: Any = None) -> None:
    """Check the device; there is nothing to wait for."""
    index_of(device)


def can_device_access_peer(device: Any, peer: Any) -> bool:
    return index_of(device) != index_of(peer)


def utilization(device: Any = None) -> int:
    """Nobody measures a simulated device."""
    raise NotImplementedError("torch.npu.utilization is not simulated")


def get_device_name(device: Any = None) -> str:
    index_of(device)
    return SOC_NAME


def get_soc_version() -> int:
    return SOC_VERSION


def get_device_capability(device: Any = None) -> tuple[int, int]:
    """(0, 0): an NPU has no CUDA capability. (The real function returns None, which torch's broadcast subscripts.)"""
    return (0, 0)


def is_bf16_supported() -> bool:
    return True


@dataclass(frozen=True)
class _NPUDeviceProperties:
    name: str
    total_memory: int  # bytes
    cube_core_num: int = 24
    vector_core_num: int = 48
    multi_processor_count: int = 24
    L2_cache_size: int = 192 << 20  # bytes
    major: int = 0
    minor: int = 0


def get_device_properties(device: Any = None) -> _NPUDeviceProperties:
    return _NPUDeviceProperties(get_device_name(device), _sim.hbm_bytes())


def ipc_collect() -> None:
    """No memory is shared between processes."""
