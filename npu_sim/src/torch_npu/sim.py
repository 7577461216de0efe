# SPDX-License-Identifier: Apache-2.0
"""What only a simulated device can tell: counts of what ran, exact memory, who holds what."""

from dataclasses import dataclass

from torch_npu import _sim, _startup
from torch_npu.distributed.world_of_one import make_world_of_one
from torch_npu.hollow import HollowRead, give_contents, is_hollow, make_hollow, with_contents


@dataclass(frozen=True)
class DeviceMemory:
    """Bytes on one device. ``free`` counts all processes that share ``NPU_SIM_SLOTS``; the rest is this process."""

    allocated: int
    allocated_peak: int
    reserved: int
    reserved_peak: int
    free: int
    total: int


@dataclass(frozen=True)
class GroupTraffic:
    """What the hccl groups of some ranks moved, from this rank's view.

    ``ranks`` are those of the whole world, empty for groups that were made by hand. ``kind`` is c10d's backend name of
    the collective (``allreduce``, ``alltoall_base``, ...) or a fused operator's. ``sent`` are the bytes of the tensors
    handed in to be sent, ``received`` those of the tensors that are written, own shares included: what is broadcast or
    scattered is sent by the root alone, what is reduced to one rank is received by that one alone.
    """

    ranks: tuple[int, ...]
    kind: str
    calls: int
    sent: int
    received: int


@dataclass(frozen=True)
class HostTraffic:
    """(calls, bytes) of copies of tensors between host and devices, with the bytes of the device's tensor, as the host
    converts dtypes; and of blocks of host memory that were page-locked."""

    to_device: tuple[int, int]
    to_host: tuple[int, int]
    locked: tuple[int, int]


@dataclass(frozen=True)
class Traffic:
    """Calls of a collective by this process, and the bytes it handed in (for broadcast: of the buffer)."""

    calls: int
    bytes: int


def op_counts() -> dict[str, int]:
    """Calls since the last reset: torch operators as ``aten::name.overload``, fused ones by their own name."""
    return {**_sim.op_counts(), **_startup.load_operators().counts()}


def collective_counts() -> dict[str, Traffic]:
    """Collectives since the last reset, by c10d's backend names (``allreduce``, ``alltoall_base``, ...)."""
    return {name: Traffic(calls, size) for name, (calls, size) in _sim.collective_counts().items()}


def traffic() -> list[GroupTraffic]:
    """Traffic since the last reset, by ranks and kind; a world of one counts as a real one does."""
    return [GroupTraffic(*row) for row in _sim.traffic()]


def host_traffic() -> HostTraffic:
    """Copies between host and devices, and page-locked blocks, since the last reset of the traffic."""
    return HostTraffic(**_sim.host_traffic())


def reset_traffic() -> None:
    """Forget all traffic, that with the host too."""
    _sim.reset_traffic()


def reset_counts() -> None:
    """Set the counts of operators and collectives to zero."""
    _sim.reset_counts()
    _startup.load_operators().reset_counts()


def memory(device: int = -1) -> DeviceMemory:
    """Memory of a device (-1: the current one)."""
    stats = _sim.memory_stats(device)
    free, total = _sim.free_and_total(device)
    return DeviceMemory(
        stats["allocated"], stats["allocated_peak"], stats["reserved"], stats["reserved_peak"], free, total
    )


def live_blocks(device: int = -1) -> list[tuple[int, int]]:
    """(address, bytes) of every block this process holds on a device, newest first."""
    return _sim.live_blocks(device)


def slots() -> list[tuple[int, int, int]]:
    """(pid, physical device, reserved bytes) of all live processes; empty unless ``NPU_SIM_SLOTS`` is set."""
    return _sim.slots()


def set_hbm_bytes(size: int) -> None:
    """Change the size of every device of this process (tests)."""
    _sim.set_hbm_bytes(size)


__all__ = [
    "DeviceMemory",
    "GroupTraffic",
    "HollowRead",
    "HostTraffic",
    "Traffic",
    "collective_counts",
    "give_contents",
    "host_traffic",
    "is_hollow",
    "live_blocks",
    "make_hollow",
    "make_world_of_one",
    "memory",
    "op_counts",
    "reset_counts",
    "reset_traffic",
    "set_hbm_bytes",
    "slots",
    "traffic",
    "with_contents",
]
