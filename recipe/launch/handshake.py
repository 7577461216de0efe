# SPDX-License-Identifier: Apache-2.0
"""How two launchers prove to one another that they hold the cluster's token: the exchange without a connection.

Each end sends a greeting with a nonce of its own, then a line under the key that follows from the token and both
nonces. Until that line has come the other end may be anybody, and little of what it sends is kept.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets

from recipe.launch.errors import ChannelError

_GREETING = b"recipe-launch-1"
_HELLO = b'{"kind": "hello"}'
# A greeting has 48 bytes, a proof 82.
LONGEST_LINE = 128
FOREIGN = "what answers there is no launcher of this recipe"
OTHER_TOKEN = "the other end holds another token: copy the head's token file to every node"


class Handshake:
    """One end's part. Send `greeting`; then, until `done`, send what `take` gives for what has arrived.

    Attributes:
        greeting: the first bytes to send.
        done: whether the other end has proven that it holds the token.
        rest: what arrived after its proof.
        key: of the connection's lines.
    """

    def __init__(self, token: bytes, server: bool) -> None:
        self._token = token
        self._own = secrets.token_hex(16).encode()
        self.sends, self.hears = (b"server", b"client") if server else (b"client", b"server")
        self.greeting = _GREETING + b" " + self._own + b"\n"
        self.key: bytes | None = None
        self.rest = b""
        self.done = False

    def take(self, data: bytes) -> bytes:
        """Take in what has arrived, up to the next line, and return what to send.

        Where something is to be sent, send it and call again with nothing, as more may have arrived. So the other end
        gets this end's proof even when its own fails.

        Raises:
            ChannelError: the other end does not speak this protocol, or holds another token.
        """
        self.rest += data
        line, end, rest = self.rest.partition(b"\n")
        if len(line) > LONGEST_LINE:
            raise ChannelError(FOREIGN)
        if not end:
            return b""
        self.rest = rest
        if self.key is None:
            return self._greeted(line)
        self._prove(line)
        return b""

    def _greeted(self, line: bytes) -> bytes:
        greeting, _, nonce = line.partition(b" ")
        if greeting != _GREETING or len(nonce) != len(self._own):
            raise ChannelError(FOREIGN)
        nonces = self._own + nonce if self.sends == b"server" else nonce + self._own
        self.key = hmac.new(self._token, b"recipe-launch" + nonces, hashlib.sha256).digest()
        return line_of(self.key, self.sends, 0, _HELLO)

    def _prove(self, line: bytes) -> None:
        assert self.key is not None
        if text_of(self.key, self.hears, 0, line) != _HELLO:
            raise ChannelError(FOREIGN)
        self.done = True


def line_of(key: bytes, direction: bytes, number: int, text: bytes) -> bytes:
    """A line of the connection: the HMAC over direction, number and text, then the text."""
    return _code(key, direction, number, text) + b" " + text + b"\n"


def text_of(key: bytes, direction: bytes, number: int, line: bytes) -> bytes:
    """The text of a line, without its end.

    Raises:
        ChannelError: it is not the line of that number from a holder of the token.
    """
    code, _, text = line.partition(b" ")
    if not hmac.compare_digest(code, _code(key, direction, number, text)):
        raise ChannelError(OTHER_TOKEN)
    return text


def _code(key: bytes, direction: bytes, number: int, text: bytes) -> bytes:
    return hmac.new(key, b"%s %d %s" % (direction, number, text), hashlib.sha256).hexdigest().encode()
