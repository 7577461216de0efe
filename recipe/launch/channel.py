# SPDX-License-Identifier: Apache-2.0
"""Authenticated JSON lines between the launchers of two nodes.

Both ends prove that they hold the cluster's token before either believes a word (`recipe.launch.handshake`), and every
line carries an HMAC-SHA256 over its direction, its number and its text, so that none can be forged, left out or
replayed. Nothing is encrypted: what goes over the channel (names, addresses, outcomes, logs) is no secret within the
network of the run.
"""

from __future__ import annotations

import json
import socket
import time
from typing import Any, NoReturn

from recipe.launch.errors import BrokenChannelError, ChannelError
from recipe.launch.handshake import Handshake, line_of, text_of

# Longer than any message: the longest is a chunk of a log in base64. A longer line is not from a launcher.
_LONGEST_LINE = 2 * 2**20
_HANDSHAKE_S = 10.0
BEAT_S = 5.0
# Missed beats before the other end counts as gone: a machine that dies without closing its connections.
SILENCE_S = 30.0


class Channel:
    """One connection whose other end holds the token. Methods are for one thread at a time.

    `heard` is when (time.monotonic) something last came.
    """

    def __init__(self, connection: socket.socket, handshake: Handshake) -> None:
        """Go on where a finished handshake ended."""
        assert handshake.done and handshake.key is not None
        self._socket, self._key, self._buffer = connection, handshake.key, handshake.rest
        self._sends, self._hears = handshake.sends, handshake.hears
        self._sent = self._received = 1
        self._beaten = self.heard = time.monotonic()

    def send(self, message: dict[str, Any]) -> None:
        """Send one message.

        Raises:
            ChannelError: the other end is gone.
        """
        line = line_of(self._key, self._sends, self._sent, json.dumps(message).encode())
        try:
            self._socket.settimeout(SILENCE_S)
            self._socket.sendall(line)
        except OSError as error:
            raise _broken(error) from None
        self._sent += 1
        self._beaten = time.monotonic()

    def receive(self, timeout_s: float) -> dict[str, Any] | None:
        """The next message that is not a beat; None when none came within `timeout_s`.

        Raises:
            ChannelError: the connection was closed, or a line is not from a holder of the token, or is no JSON object.
        """
        end = time.monotonic() + timeout_s
        while True:
            line = self._line(max(0.0, end - time.monotonic()))
            if line is None:
                return None
            message = _parsed(text_of(self._key, self._hears, self._received, line))
            self._received += 1
            if message != {"kind": "beat"}:
                return message

    def beat(self, patience_s: float | None = None) -> None:
        """Say that this end is alive, when that is due.

        Args:
            patience_s: how long the other end may be silent; default: SILENCE_S.

        Raises:
            ChannelError: the other end is gone, or has been silent for too long.
        """
        now, limit = time.monotonic(), SILENCE_S if patience_s is None else patience_s
        if now - self.heard > limit:
            raise BrokenChannelError(f"nothing was heard of it for {limit:.0f} s (machine or network down)")
        if now - self._beaten > BEAT_S:
            self.send({"kind": "beat"})

    def close(self) -> None:
        self._socket.close()

    def _line(self, timeout_s: float) -> bytes | None:
        end = time.monotonic() + timeout_s
        while b"\n" not in self._buffer:
            data = _received(self._socket, end)
            if data is None:
                return None
            self.heard = time.monotonic()
            self._buffer += data
            if len(self._buffer) > _LONGEST_LINE:
                raise ChannelError(f"it sends a line of more than {_LONGEST_LINE} bytes")
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line


def shake_hands(connection: socket.socket, token: bytes, server: bool) -> Channel:
    """Shake hands on a fresh connection; it is closed when that fails.

    Raises:
        BrokenChannelError: the connection ended before, or the other end says nothing.
        ChannelError: the other end does not speak this protocol, or holds another token.
    """
    handshake, end = Handshake(token, server), time.monotonic() + _HANDSHAKE_S
    try:
        try:
            connection.settimeout(_HANDSHAKE_S)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.sendall(handshake.greeting)
            while not handshake.done:
                data = _received(connection, end)
                if data is None:
                    raise BrokenChannelError(f"what answers there said too little within {_HANDSHAKE_S:.0f} s")
                while answer := handshake.take(data):
                    connection.sendall(answer)
                    data = b""
        except OSError as error:
            raise _broken(error) from None
    except BaseException:
        connection.close()
        raise
    return Channel(connection, handshake)


def _received(connection: socket.socket, end: float) -> bytes | None:
    """What comes next, at least one byte; None when nothing came until `end` (of time.monotonic)."""
    try:
        connection.settimeout(max(end - time.monotonic(), 0.001))
        data = connection.recv(2**16)
    except TimeoutError:
        return None
    except OSError as error:
        raise _broken(error) from None
    if not data:
        raise BrokenChannelError("the connection was closed")
    return data


def _broken(error: OSError) -> BrokenChannelError:
    return BrokenChannelError(f"the connection broke ({error.strerror or error})")


def _parsed(text: bytes) -> dict[str, Any]:
    try:
        message = json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError):  # no UTF-8, no JSON, a number of thousands of digits, brackets in brackets
        raise ChannelError("it sends a line that is no JSON") from None
    if not isinstance(message, dict):
        raise ChannelError("it sends a line that is no JSON object")
    return message


def _no_number(name: str) -> NoReturn:
    raise ValueError(name)
