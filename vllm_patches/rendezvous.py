# SPDX-License-Identifier: Apache-2.0
"""Where the processes of a group find each other: on the address they are given, not on every interface.

torch's store takes connections without a token, and whoever reaches it can put another address in the place of a
rank's. torch binds it to all interfaces, but takes a socket that is bound already, and within one process it uses the
store that is there for a port (`multi_tenant`).
"""

# NPU-ADAPTATION: torch's stores listen on the address they are given only

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed as dist


@contextmanager
def on_address(host: str, port: int, rank: int) -> Iterator[None]:
    """Within the block rank 0's TCP store of `host`:`port` listens on that address only.

    Whatever torch makes for the port within the block keeps it. Other ranks listen on nothing. Where `host` is not an
    address of this machine, torch does as it would.

    Args:
        host: the address or name that all ranks are given.
        port: the same; 0 is left to torch.
        rank: of this process in the group.
    """
    store = None
    if rank == 0 and port:
        try:
            listener = socket.create_server((host, port), backlog=2048)
        except OSError:
            # Behind an address translation, or taken; torch says which, where it cannot go on.
            pass
        else:
            store = dist.TCPStore(
                host, port, None, True, wait_for_workers=False, multi_tenant=True, master_listen_fd=listener.detach()
            )
    yield
    del store
