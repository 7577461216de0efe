# SPDX-License-Identifier: Apache-2.0
"""What the launchers of a run tell one another, checked as it arrives: the sender may be other code, or broken.

A node says `{"node": ...}`, "note", "ready", "lost", "log", "done"; the head "admitted", "refused", "join", "over".
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from recipe.launch.errors import ChannelError

# A node's name is also that of the directory of its logs.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}")
# The texts that go with what the head says.
_TEXTS = {
    "refused": ("text",),
    "over": ("status", "text"),
    "join": ("gcs", "run_dir", "run_id", "checkpoints"),
}


@dataclass(frozen=True)
class Node:
    """How a node presents itself.

    `daemons`: the ports of its Ray that the head must reach, by purpose. `facts` must be the same on all nodes of a
    run; `settings` is its run file.
    """

    name: str
    address: str
    host: str
    dies: int
    daemons: Mapping[str, int]
    facts: Mapping[str, str]
    settings: Mapping[str, Any]

    def known_as(self, names: Sequence[str]) -> bool:
        """Whether one of `names` means this node."""
        return any(name in (self.name, self.address, self.host) for name in names)


def node_in(message: Mapping[str, Any]) -> Node:
    """The node that presents itself with `message`.

    Raises:
        ValueError: it does so in another way than `recipe.launch.node.present`.
    """
    try:
        node = Node(**message["node"])
    except (KeyError, TypeError):
        raise ValueError("no node, or one with other fields") from None
    mappings = (node.daemons, node.facts, node.settings)
    if not (
        isinstance(node.name, str)
        and NAME.fullmatch(node.name)
        and isinstance(node.host, str)
        and node.host.isprintable()
        and len(node.host) < 256
        and isinstance(node.address, str)
        and type(node.dies) is int
        and all(isinstance(mapping, Mapping) for mapping in mappings)
        and all(type(port) is int and 0 < port < 2**16 for port in node.daemons.values())
    ):
        raise ValueError("a field of another type")
    ipaddress.ip_address(node.address)
    return node


def from_head(message: dict[str, Any] | None) -> dict[str, Any] | None:
    """What the head said, if anything: its "kind" is a text, and so is all that goes with a kind.

    Raises:
        ChannelError: it is not.
    """
    if message is None:
        return None
    kind = message.get("kind")
    if not isinstance(kind, str) or not all(isinstance(message.get(name), str) for name in _TEXTS.get(kind, ())):
        raise ChannelError("it says something in another way than this code does; bring both to the same commit")
    if kind == "join" and not re.fullmatch(r"[0-9.]+:[0-9]{1,5}", message["gcs"]):
        raise ChannelError("it names no ADDRESS:PORT of its Ray; bring both to the same commit")
    return message
