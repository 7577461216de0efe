# SPDX-License-Identifier: Apache-2.0
"""Where callers wait until they have proven that they hold the cluster's token.

Whoever reaches the port may call, as often as they like and say what they like, or nothing. All who have not proven the
token share one thread, a small number of connections and a short time; the longest waiting makes room for the newest,
so that a node of the run gets in while others keep calling.
"""

from __future__ import annotations

import resource
import selectors
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from recipe.launch.errors import ChannelError
from recipe.launch.handshake import Handshake

# A handshake takes a round trip or two, however the caller sends it.
PROOF_S = 5.0
# Unproven connections in all, and from one address; never more than an eighth of the files this process may open.
IN_ALL = 128
PER_ADDRESS = 32
POLL_S = 0.2
_RECEIVED = 4096

Welcome = Callable[[socket.socket, Handshake, str], None]


@dataclass
class _Caller:
    connection: socket.socket
    address: str
    handshake: Handshake
    since: float = field(default_factory=time.monotonic)


class Entrance:
    """The listener and all who have not proven the token yet.

    Args:
        listener: a listening socket; closed at the end of `run`.
        token: the cluster's.
        welcome: takes the connection, the finished handshake and the address of each caller that has proven the token.
        refuse: takes the address and the reason of each one that is turned away.
    """

    def __init__(
        self, listener: socket.socket, token: bytes, welcome: Welcome, refuse: Callable[[str, str], None]
    ) -> None:
        self._listener, self._token, self._welcome, self._refuse = listener, token, welcome, refuse
        self._callers: dict[socket.socket, _Caller] = {}  # in the order in which they came
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._in_all = IN_ALL if files == resource.RLIM_INFINITY else max(8, min(IN_ALL, files // 8))
        self._per_address = max(4, min(PER_ADDRESS, self._in_all // 4))
        self._selector = selectors.DefaultSelector()
        listener.setblocking(False)
        self._selector.register(listener, selectors.EVENT_READ)

    def run(self, closed: threading.Event) -> None:
        """Let callers in until `closed`."""
        try:
            while not closed.is_set():
                for key, _ in self._selector.select(POLL_S):
                    if key.data is None:
                        self._accept(closed)
                    elif key.data.connection in self._callers:  # not dropped in this very round
                        self._hear(key.data)
                self._drop_late()
        finally:
            for caller in list(self._callers.values()):
                self._forget(caller).close()
            self._selector.close()
            self._listener.close()

    def _accept(self, closed: threading.Event) -> None:
        try:
            connection, peer = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return  # it has gone again
        except OSError as error:
            # Mostly because no file descriptors are left; the caller stays in the listener's queue meanwhile.
            if self._callers:
                self._drop(next(iter(self._callers.values())), f"no room ({error.strerror})")
            else:
                closed.wait(POLL_S)
            return
        self._make_room(str(peer[0]))
        caller = _Caller(connection, str(peer[0]), Handshake(self._token, server=True))
        self._callers[connection] = caller
        try:
            connection.setblocking(False)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._selector.register(connection, selectors.EVENT_READ, caller)
            self._answer(caller, caller.handshake.greeting)
        except OSError as error:
            self._drop(caller, f"the connection broke ({error.strerror or error})")

    def _hear(self, caller: _Caller) -> None:
        try:
            data = caller.connection.recv(_RECEIVED)
            if not data:
                raise ChannelError("the connection was closed")
            while answer := caller.handshake.take(data):
                self._answer(caller, answer)
                data = b""
        except BlockingIOError:
            return
        except OSError as error:
            self._drop(caller, f"the connection broke ({error.strerror or error})")
        except ChannelError as error:
            self._drop(caller, str(error))
        else:
            if caller.handshake.done:
                self._welcome(self._forget(caller), caller.handshake, caller.address)

    def _answer(self, caller: _Caller, answer: bytes) -> None:
        # A new connection's send buffer holds both answers, so that sending does not block.
        if caller.connection.send(answer) < len(answer):
            raise ChannelError("it does not read what is said to it")

    def _make_room(self, address: str) -> None:
        """Drop the longest waiting where there are too many: of this address, else of the one with the most."""
        counts = Counter(caller.address for caller in self._callers.values())
        crowded = address if counts[address] >= self._per_address else None
        if crowded is None and len(self._callers) >= self._in_all:
            crowded = counts.most_common(1)[0][0]
        if crowded is not None:
            oldest = next(caller for caller in self._callers.values() if caller.address == crowded)
            self._drop(oldest, "it proved no token, and others wait")

    def _drop_late(self) -> None:
        late = time.monotonic() - PROOF_S
        for caller in [caller for caller in self._callers.values() if caller.since < late]:
            self._drop(caller, f"it proved no token within {PROOF_S:.0f} s")

    def _drop(self, caller: _Caller, reason: str) -> None:
        self._forget(caller).close()
        self._refuse(caller.address, reason)

    def _forget(self, caller: _Caller) -> socket.socket:
        del self._callers[caller.connection]
        with suppress(KeyError, ValueError):
            self._selector.unregister(caller.connection)
        return caller.connection
