# SPDX-License-Identifier: Apache-2.0
"""The store in which the engines of a data-parallel domain meet listens on the address that it is given."""

from __future__ import annotations

import psutil
import pytest
import torch
import torch.distributed as dist
import vllm.distributed.utils as upstream

from tests.ranks import free_port
from vllm_patches.rendezvous import on_address

HOST = "127.0.0.1"


def listening(port: int) -> list[str]:
    found = psutil.Process().net_connections("tcp")
    return [one.laddr.ip for one in found if one.status == psutil.CONN_LISTEN and one.laddr.port == port]


@pytest.mark.proves("vllm_patches.distributed.utils:stateless_init_torch_distributed_process_group")
def test_engines_meet_on_the_address_they_are_given() -> None:
    port = free_port()
    group = upstream.stateless_init_torch_distributed_process_group(HOST, port, 0, 1, backend="gloo")
    assert listening(port) == [HOST]
    value = torch.ones(1)
    group.allreduce([value]).wait()
    assert value.item() == 1
    del group
    assert listening(port) == []


def test_torch_keeps_the_store_that_is_there() -> None:
    port = free_port()
    with on_address(HOST, port, rank=0):
        store = dist.TCPStore(HOST, port, 1, True, multi_tenant=True)
    assert listening(port) == [HOST]
    store.set("key", "value")
    assert store.get("key") == b"value"


def test_torch_alone_listens_everywhere() -> None:
    """Should this fail, torch binds the address by itself, and the patches can go."""
    port = free_port()
    store = dist.TCPStore(HOST, port, 1, True, multi_tenant=True)
    assert listening(port) == ["::"] and store.port == port


@pytest.mark.parametrize(("host", "rank", "fixed"), [("192.0.2.1", 0, True), (HOST, 1, True), (HOST, 0, False)])
def test_nothing_is_bound_elsewhere(host: str, rank: int, fixed: bool) -> None:
    before = len(psutil.Process().net_connections("tcp"))
    with on_address(host, free_port() if fixed else 0, rank):
        assert len(psutil.Process().net_connections("tcp")) == before
