# SPDX-License-Identifier: Apache-2.0
"""The environment that makes many single-process vLLM engines one data-parallel domain.

vLLM builds its groups from the ranks of the running `torch.distributed` world laid out as
[instance, data parallel, tensor parallel], tensor parallel fastest. With `VLLM_DP_SIZE` given by the launcher, each
engine needs to know its place in that layout, and each column of engines (equal tensor-parallel rank) an address at
which its members find one another.
"""

# NPU-ADAPTATION: the engines of many processes are one data-parallel domain

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch.distributed as dist


@dataclass(frozen=True)
class DataParallelPlace:
    """One rank's place: its data-parallel rank, and the global rank that leads its column."""

    rank: int
    leader: int


def data_parallel_place(rank: int, world_size: int, dp_size: int, tp_size: int) -> DataParallelPlace:
    """The place of global rank `rank` in the layout [world_size // (dp_size * tp_size), dp_size, tp_size].

    Raises:
        ValueError: when the world does not divide into whole instances.
    """
    if dp_size < 1 or tp_size < 1 or world_size % (dp_size * tp_size) != 0:
        raise ValueError(
            f"{world_size} ranks cannot be laid out as rollout instances of VLLM_DP_SIZE {dp_size} x tensor parallel "
            f"{tp_size} = {dp_size * tp_size} ranks: make VLLM_DP_SIZE * tensor_model_parallel_size divide the world"
        )
    instance = rank // (dp_size * tp_size)
    return DataParallelPlace(
        rank=(rank // tp_size) % dp_size,
        leader=instance * dp_size * tp_size + rank % tp_size,
    )


def node_address() -> str:
    """This node's address as the other nodes see it: Ray's, or loopback outside Ray."""
    import ray

    return ray.util.get_node_ip_address().strip("[]") if ray.is_initialized() else "127.0.0.1"


@contextmanager
def data_parallel_environment(
    tp_size: int, environ: MutableMapping[str, str] = os.environ, address: str | None = None
) -> Iterator[DataParallelPlace | None]:
    """Set `VLLM_DP_RANK`, `VLLM_DP_MASTER_IP` and `VLLM_DP_MASTER_PORT` for the engine built inside the block.

    Collective over the world when `VLLM_DP_SIZE` is above 1; otherwise nothing is set and None is yielded. The leader
    of each column binds a free port and keeps it bound, without listening, until the block ends: the kernel gives it
    to nobody else, while the store that vLLM opens there (with SO_REUSEADDR, as ours) may. The variables stay set
    afterwards, as vLLM reads them again.
    """
    dp_size = int(environ.get("VLLM_DP_SIZE", "1"))
    place = data_parallel_place(dist.get_rank(), dist.get_world_size(), dp_size, tp_size)
    if dp_size == 1:
        yield None
        return
    address = address or node_address()
    reserved = _reserve_port(address) if place.leader == dist.get_rank() else None
    try:
        offers: list[tuple[str, int] | None] = [None] * dist.get_world_size()
        dist.all_gather_object(offers, (address, reserved.getsockname()[1]) if reserved else None)
        offer = offers[place.leader]
        if offer is None:
            raise RuntimeError(
                f"rank {place.leader}, which leads this rank's data-parallel column, offered no port: VLLM_DP_SIZE and "
                "tensor_model_parallel_size must be the same on every rank"
            )
        environ["VLLM_DP_RANK"] = environ["VLLM_DP_RANK_LOCAL"] = str(place.rank)
        environ["VLLM_DP_MASTER_IP"], environ["VLLM_DP_MASTER_PORT"] = offer[0], str(offer[1])
        yield place
    finally:
        if reserved is not None:
            reserved.close()


def _reserve_port(address: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    reserved = socket.socket(family, socket.SOCK_STREAM)
    try:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind((address, 0))
    except OSError:
        reserved.close()
        raise
    return reserved
