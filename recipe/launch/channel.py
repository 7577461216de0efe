# SPDX-License-Identifier: Apache-2.0
"""Authenticated JSON lines between the launchers of two nodes.

Both ends prove that they hold the cluster's token before either believes a word, and every line carries an HMAC-SHA256
over its direction, its number and its text, so that none can be forged, left out or replayed. Nothing is encrypted:
what goes over the channel (names, addresses, outcomes, logs) is no secret within the network of the run.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import socket
import time
from typing import Any

from recipe.launch.errors import LaunchError

# A line of a log chunk in base64, with room; what is longer is not ours.
_LONGEST_LINE = 2 * 2**20
_HANDSHAKE_S = 10.0
BEAT_S = 5.0
# Missed beats before the other end counts as gone: a machine that dies without closing its connections.
SILENCE_S = 30.0


class ChannelError(LaunchError):
    """The other end is gone, is not ours, or holds another token."""


class Channel:
    """One connection. Methods are for one thread at a time."""

    def __init__(self, connection: socket.socket, token: bytes, server: bool) -> None:
        """Shake hands on a fresh connection.

        Raises:
            ChannelError: the other end does not speak this protocol, or holds another token.
        """
        self._socket = connection
        self._buffer = b""
        self._sent = self._received = 0
        self._sends, self._hears = (b"server", b"client") if server else (b"client", b"server")
        self._beaten = self.heard = time.monotonic()
        self._key = b""
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.settimeout(_HANDSHAKE_S)
            own = secrets.token_hex(16).encode()
            connection.sendall(b"recipe-launch-1 " + own + b"\n")
            greeting, _, other = (self._line(_HANDSHAKE_S) or b"").partition(b" ")
            if greeting != b"recipe-launch-1" or len(other) != 32:
                raise ChannelError("what answers there is no launcher of this recipe")
            nonces = own + other if server else other + own
            self._key = hmac.new(token, b"recipe-launch" + nonces, hashlib.sha256).digest()
            self.send({"kind": "hello"})
            if self.receive(_HANDSHAKE_S) != {"kind": "hello"}:
                raise ChannelError("what answers there is no launcher of this recipe")
        except BaseException:
            self.close()
            raise

    def send(self, message: dict[str, Any]) -> None:
        """Send one message.

        Raises:
            ChannelError: the other end is gone.
        """
        text = json.dumps(message).encode()
        line = self._mac(self._sends, self._sent, text) + b" " + text + b"\n"
        try:
            self._socket.settimeout(SILENCE_S)
            self._socket.sendall(line)
        except OSError as error:
            raise ChannelError(f"the connection broke ({error.strerror or error})") from None
        self._sent += 1
        self._beaten = time.monotonic()

    def receive(self, timeout_s: float) -> dict[str, Any] | None:
        """The next message that is not a beat; None when none came within `timeout_s`.

        Raises:
            ChannelError: the connection was closed, or a line is not from a holder of the token.
        """
        end = time.monotonic() + timeout_s
        while True:
            line = self._line(max(0.0, end - time.monotonic()))
            if line is None:
                return None
            mac, _, text = line.partition(b" ")
            if not hmac.compare_digest(mac, self._mac(self._hears, self._received, text)):
                raise ChannelError("the other end holds another token: copy the head's token file to every node")
            self._received += 1
            message = json.loads(text)
            if message != {"kind": "beat"}:
                return dict(message)

    def beat(self, patience_s: float | None = None) -> None:
        """Say that this end is alive, when that is due.

        Args:
            patience_s: how long the other end may be silent; default: SILENCE_S.

        Raises:
            ChannelError: the other end is gone, or has been silent for too long.
        """
        now, limit = time.monotonic(), SILENCE_S if patience_s is None else patience_s
        if now - self.heard > limit:
            raise ChannelError(f"nothing was heard of it for {limit:.0f} s (machine or network down)")
        if now - self._beaten > BEAT_S:
            self.send({"kind": "beat"})

    def close(self) -> None:
        self._socket.close()

    def _mac(self, direction: bytes, number: int, text: bytes) -> bytes:
        return hmac.new(self._key, b"%s %d %s" % (direction, number, text), hashlib.sha256).hexdigest().encode()

    def _line(self, timeout_s: float) -> bytes | None:
        end = time.monotonic() + timeout_s
        while b"\n" not in self._buffer:
            left = end - time.monotonic()
            self._socket.settimeout(max(left, 0.001))
            try:
                data = self._socket.recv(2**16)
            except TimeoutError:
                return None
            except OSError as error:
                raise ChannelError(f"the connection broke ({error.strerror or error})") from None
            if not data:
                raise ChannelError("the connection was closed")
            self.heard = time.monotonic()
            self._buffer += data
            if len(self._buffer) > _LONGEST_LINE:
                raise ChannelError("what answers there is no launcher of this recipe")
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line
