# SPDX-License-Identifier: Apache-2.0
"""``torch.npu.memory``: exact byte counts.

All figures are bytes; ``device`` is an index, a string, a torch.device, or None for the current one.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch_npu import _sim
from torch_npu.npu.devices import index_of


def memory_allocated(device: Any = None) -> int:
    """Bytes in live blocks of this process, each rounded up to 512."""
    return _sim.memory_stats(index_of(device))["allocated"]


def max_memory_allocated(device: Any = None) -> int:
    return _sim.memory_stats(index_of(device))["allocated_peak"]


def memory_reserved(device: Any = None) -> int:
    """Bytes taken from the device by this process, in steps of 2 MiB; falls only in :func:`empty_cache`."""
    return _sim.memory_stats(index_of(device))["reserved"]


def max_memory_reserved(device: Any = None) -> int:
    return _sim.memory_stats(index_of(device))["reserved_peak"]


memory_cached, max_memory_cached = memory_reserved, max_memory_reserved


def reset_peak_memory_stats(device: Any = None) -> None:
    _sim.reset_peak(index_of(device))


reset_max_memory_allocated = reset_max_memory_cached = reset_peak_memory_stats


def reset_accumulated_memory_stats(device: Any = None) -> None:
    _sim.reset_accumulated(index_of(device))


def empty_cache() -> None:
    """Give back what no block uses, on all devices."""
    _sim.empty_cache()


def mem_get_info(device: Any = None) -> tuple[int, int]:
    """(free, total) bytes of the device, over all processes that share ``NPU_SIM_SLOTS``."""
    return tuple(_sim.free_and_total(index_of(device)))


def memory_stats(device: Any = None) -> dict[str, int]:
    """The flat dictionary of torch's caching allocators. There are no pools: small and large ones stay empty."""
    stats = _sim.memory_stats(index_of(device))
    live = stats["allocations"] - stats["frees"]
    families = {
        "allocated_bytes": (
            stats["allocated"],
            stats["allocated_peak"],
            stats["allocated_total"],
            stats["freed_total"],
        ),
        "reserved_bytes": (stats["reserved"], stats["reserved_peak"], stats["reserved_peak"], 0),
        "allocation": (live, live, stats["allocations"], stats["frees"]),
        "segment": (0, 0, 0, 0),
        "inactive_split": (0, 0, 0, 0),
        "inactive_split_bytes": (0, 0, 0, 0),
    }
    families["active_bytes"] = families["requested_bytes"] = families["allocated_bytes"]
    families["active"] = families["allocation"]
    result = {"num_alloc_retries": 0, "num_ooms": stats["ooms"]}
    for family, values in families.items():
        for pool in ("all", "large_pool", "small_pool"):
            for metric, value in zip(("current", "peak", "allocated", "freed"), values, strict=True):
                result[f"{family}.{pool}.{metric}"] = value if pool == "all" else 0
    return dict(sorted(result.items()))


def memory_stats_as_nested_dict(device: Any = None) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for key, value in memory_stats(device).items():
        *path, last = key.split(".")
        place = nested
        for part in path:
            place = place.setdefault(part, {})
        place[last] = value
    return nested


def memory_summary(device: Any = None, abbreviated: bool = False) -> str:
    index = index_of(device)
    stats, (free, total) = _sim.memory_stats(index), _sim.free_and_total(index)
    return (
        f"npu:{index} (simulated): allocated {stats['allocated']} (peak {stats['allocated_peak']}), "
        f"reserved {stats['reserved']} (peak {stats['reserved_peak']}), free {free} of {total} bytes; "
        f"{stats['allocations'] - stats['frees']} blocks, {stats['ooms']} out-of-memory errors"
    )


def memory_snapshot() -> list[dict[str, int]]:
    """Live blocks of the visible devices: address, size, device."""
    return [
        {"device": device, "address": address, "allocated_size": size, "total_size": size}
        for device in range(_sim.device_count())
        for address, size in _sim.live_blocks(device)
    ]


def set_per_process_memory_fraction(fraction: float, device: Any = None) -> None:
    raise NotImplementedError("torch.npu.set_per_process_memory_fraction is not simulated; set NPU_SIM_HBM")


def caching_allocator_alloc(size: int, device: Any = None, stream: Any = None) -> int:
    raise NotImplementedError("torch.npu.caching_allocator_alloc is not simulated; allocate a tensor")


def _record_memory_history(*args: Any, **kwargs: Any) -> None:
    raise NotImplementedError("recording the allocator's history is not simulated; see torch_npu.sim.live_blocks")


class NPUPluggableAllocator:
    """Allocators from shared libraries (sleep mode) are not simulated; the class exists to be imported."""

    def __init__(self, path_to_so_file: str, alloc_fn_name: str, free_fn_name: str) -> None:
        raise NotImplementedError("pluggable allocators (sleep mode) are not simulated; switch sleep mode off")


def change_current_allocator(allocator: Any) -> None:
    raise NotImplementedError("pluggable allocators are not simulated")


class MemPool:
    """Memory pools (sleep mode) are not simulated; the class exists to be imported."""

    def __init__(self, allocator: Any = None) -> None:
        raise NotImplementedError("memory pools (sleep mode) are not simulated; switch sleep mode off")


@contextmanager
def use_mem_pool(pool: Any, device: Any = None) -> Iterator[None]:
    raise NotImplementedError("memory pools (sleep mode) are not simulated; switch sleep mode off")
    yield
