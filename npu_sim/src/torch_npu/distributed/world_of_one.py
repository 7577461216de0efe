# SPDX-License-Identifier: Apache-2.0
"""A world of one: groups of their true sizes and ranks in which only this process exists.

Collectives return at once, and every peer holds what this rank holds (csrc/mirror.cpp): hccl groups stand on mirrors in
place of gloo, and so do gloo groups themselves. Here is what else of torch.distributed would wait for a peer.
"""

import importlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import wraps
from typing import Any
from urllib.parse import parse_qs, urlparse

import torch
import torch.distributed as dist
from torch.distributed import distributed_c10d as c10d
from torch_npu import _sim


@dataclass(frozen=True)
class _Place:
    rank: int
    world_size: int


_place: _Place | None = None
_stores: list[dist.Store] = []  # torch keeps the C++ half of each alone, which has no methods


class StoreOfOne(dist.Store):
    """A key-value store that never waits: a peer sets what this rank sets, when it does.

    Waiting for keys is over at once. A key that nobody has set only a particular peer could have set: DistStoreError.
    """

    def __init__(self) -> None:
        super().__init__()
        self._values: dict[str, bytes] = {}

    def set(self, key: str, value: str | bytes) -> None:
        self._values[key] = value if isinstance(value, bytes) else value.encode()

    def get(self, key: str) -> bytes:
        if key not in self._values:
            raise dist.DistStoreError(f"in a world of one nobody else could have set {key!r}")
        return self._values[key]

    def add(self, key: str, value: int) -> int:
        total = int(self._values.get(key, b"0")) + value
        self._values[key] = str(total).encode()
        return total

    def compare_set(self, key: str, expected_value: str | bytes, desired_value: str | bytes) -> bytes:
        expected = expected_value if isinstance(expected_value, bytes) else expected_value.encode()
        if self._values.get(key, b"") == expected:
            self.set(key, desired_value)
        return self._values.get(key, expected)

    def check(self, keys: list[str]) -> bool:
        return all(key in self._values for key in keys)

    def delete_key(self, key: str) -> bool:
        return self._values.pop(key, None) is not None

    def num_keys(self) -> int:
        return len(self._values)

    def wait(self, keys: list[str], timeout: Any = None) -> None:
        pass


class NoTCPStore(dist.Store):
    """What ``TCPStore`` is in a world of one."""

    def __init__(self, *_: Any, **__: Any) -> None:
        raise RuntimeError("a world of one opens no socket: a TCPStore would wait for peers that do not exist")


def _meet_nobody(url: str, **_: Any) -> Iterator[tuple[dist.Store, int, int]]:
    """Rendezvous of any scheme; a group beside the world, which vLLM makes, may name a rank and size of its own."""
    assert _place is not None
    parts = urlparse(url)
    asked = {key: int(values[-1]) for key, values in parse_qs(parts.query).items() if key in ("rank", "world_size")}
    if parts.scheme == "env":
        asked = {
            key: int(os.environ[key.upper()]) for key in ("rank", "world_size") if key.upper() in os.environ
        } | asked
        if _Place(**vars(_place) | asked) != _place:
            raise ValueError(f"this world of one was made as {_place.rank} of {_place.world_size}, found {asked}")
    place = _Place(**vars(_place) | asked)
    _stores.append(StoreOfOne())
    yield _stores[-1], place.rank, place.world_size


def _rank_in(group: Any, rank: int | None, group_rank: int | None) -> int:
    return group_rank if group_rank is not None else dist.get_group_rank(group or dist.group.WORLD, rank or 0)


def _as_tensors(objects: list[Any], group: Any, device: torch.device | None) -> Any:
    """(bytes, numbers of bytes), as torch.distributed sends objects."""
    on = device or c10d._get_object_coll_device(group)
    return zip(*[c10d._object_to_tensor(item, on, group) for item in objects], strict=True)


def _keeping_own_list(broadcast_object_list: Callable[..., None]) -> Callable[..., None]:
    @wraps(broadcast_object_list)
    def replacement(
        object_list: list[Any],
        src: int | None = None,
        group: Any = None,
        device: torch.device | None = None,
        group_src: int | None = None,
    ) -> None:
        root = _rank_in(group, src, group_src)
        if dist.get_rank(group) in (root, -1):
            broadcast_object_list(object_list, src, group, device, group_src)
            return
        tensors, sizes = _as_tensors(object_list, group, device)
        for received in (torch.cat(sizes), torch.cat(tensors)):
            dist.broadcast(received, group=group, group_src=root)

    return replacement


def _scattering_own_list(scatter_object_list: Callable[..., None]) -> Callable[..., None]:
    @wraps(scatter_object_list)
    def replacement(
        scatter_object_output_list: list[Any],
        scatter_object_input_list: list[Any] | None = None,
        src: int | None = None,
        group: Any = None,
        group_src: int | None = None,
    ) -> None:
        rank, root = dist.get_rank(group), _rank_in(group, src, group_src)
        if rank in (root, -1):
            scatter_object_list(scatter_object_output_list, scatter_object_input_list, src, group, group_src)
        elif scatter_object_input_list:  # the source's, too
            tensors, sizes = _as_tensors(scatter_object_input_list, group, None)
            longest = torch.stack(sizes).max(0).values
            dist.broadcast(longest, group=group, group_src=root)
            for received in (tensors[0].new_empty(int(longest)), torch.empty_like(sizes[rank])):
                dist.scatter(received, group=group, group_src=root)
            scatter_object_output_list[0] = c10d._tensor_to_object(tensors[rank], sizes[rank], group)

    return replacement


def _replace(name: str, value: Any) -> None:
    for module in (dist, c10d, torch._C._distributed_c10d):
        if hasattr(module, name):
            setattr(module, name, value)


def make_world_of_one(rank: int, world_size: int) -> None:
    """From now on this process is the only one of its world; every peer holds what it holds.

    To be called before torch.distributed is initialised, and before other packages copy ``TCPStore`` from it.
    ``init_process_group`` and ``new_group`` then make groups of the true sizes and ranks, of the backends hccl and
    gloo; no store waits and no socket is opened. ``env://`` needs no variables.

    What a collective leaves in this rank's tensors is what it would leave if all ranks had handed in the same: a sum
    is ``world_size`` times the tensor, a broadcast leaves it as it is, every peer sends what this rank would send to
    itself. Sizes that the caller names rule: where they differ, own data is cut or repeated. What only a peer could
    know stays as it is in floating tensors and is zero in others; receiving integers gives what this rank last sent of
    that dtype and size. A rank that is not the source of ``broadcast_object_list`` keeps its own list;
    ``scatter_object_list`` leaves the output alone where this rank has no list to scatter.

    Raises:
        ValueError: no such rank.
        RuntimeError: torch.distributed is initialised already.
    """
    global _place
    if not 0 <= rank < world_size:
        raise ValueError(f"rank {rank} is none of 0 to {world_size - 1}")
    if dist.is_initialized():
        raise RuntimeError("torch.distributed is initialised already; a world of one is made before init_process_group")
    first = _place is None
    _place = _Place(rank, world_size)
    if not first:
        return
    _sim.make_world_of_one()
    handlers = importlib.import_module("torch.distributed.rendezvous")._rendezvous_handlers
    for scheme in handlers:
        handlers[scheme] = _meet_nobody
    _replace("ProcessGroupGloo", _sim.ProcessGroupMirror)
    _replace("TCPStore", NoTCPStore)
    _replace("broadcast_object_list", _keeping_own_list(dist.broadcast_object_list))
    _replace("scatter_object_list", _scattering_own_list(dist.scatter_object_list))
