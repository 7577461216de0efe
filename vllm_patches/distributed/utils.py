# SPDX-License-Identifier: Apache-2.0
"""The groups in which the engines of a data-parallel domain agree."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from recipe.overlay import patch
from vllm_patches.rendezvous import on_address


@patch(
    "vllm.distributed.utils:stateless_init_torch_distributed_process_group",
    why="torch's store listens on every interface and asks for no token: whoever reaches the machine can take the "
    "place of an engine",
    upstream="vllm==0.9.1",
    fingerprint="sha256:7c74b5bc01565777049dc6f3da1752e61093067f1e0fe57032bc7a1c6a8be35e",
    remove_when="torch's TCP rendezvous binds the address it is given",
)
def stateless_init_torch_distributed_process_group(
    original: Callable[..., Any], host: str, port: int, rank: int, world_size: int, backend: str
) -> Any:
    # NPU-ADAPTATION: the store listens on the host's address only
    with on_address(host, port, rank):
        return original(host, port, rank, world_size, backend)
