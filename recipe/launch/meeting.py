# SPDX-License-Identifier: Apache-2.0
"""Where the nodes of a run meet: the head's launcher listens, the workers' launchers come and stay connected.

A worker says who it is and what it would run. It is turned away when the run is complete without it, when it is not on
the list, or when it holds another run file or other code than the head; nothing of Ray has been started for it by then.
Those that are taken in learn where to join Ray, say when they have, and learn how the run ended. A connection that
breaks or falls silent is a node that is gone.
"""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recipe.launch.channel import Channel, ChannelError
from recipe.launch.errors import LaunchError
from recipe.launch.node_logs import write_chunk

# A node's name is also that of the directory of its logs.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}")
POLL_S = 0.2
# A caller that holds the token has this long to say who it is.
IDENTITY_S = 10.0
# What a node still has to do after the end of the run: stop its Ray and send its logs.
PARTING_S = 90.0
Say = Callable[[str], None]


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


@dataclass
class _Member:
    node: Node
    channel: Channel
    ready: bool = False
    gone: str | None = None
    done: bool = False
    connected: bool = True


class Meeting:
    """The head's side. Use as a context manager: it listens from entry to exit.

    Args:
        own: the head itself, which counts as one node.
        port: where to listen, on the head's address.
        token: the cluster's token.
        nodes: how many nodes the run has, the head included.
        expected: names or addresses of all nodes, the head included; empty when the run does not list them.
        logs: directory that gets each node's logs, under its name.
        say: takes a line about who comes and goes.
    """

    def __init__(
        self, own: Node, port: int, token: bytes, nodes: int, expected: Sequence[str], logs: Path, say: Say
    ) -> None:
        self._own, self._port, self._token = own, port, token
        self._nodes, self._expected, self._logs, self._say = nodes, list(expected), logs, say
        self._members: dict[str, _Member] = {}
        # Those that left before they had joined Ray: they may come again.
        self._left: dict[str, str] = {}
        self._invitation: dict[str, Any] | None = None
        self._outcome: dict[str, Any] | None = None
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._threads: list[threading.Thread] = []
        self._listener: socket.socket | None = None

    def __enter__(self) -> Meeting:
        try:
            self._listener = socket.create_server((self._own.address, self._port), backlog=256)
        except OSError as error:
            raise LaunchError(f"cannot listen on {self._own.address}:{self._port}: {error.strerror}") from None
        self._listener.settimeout(POLL_S)
        self._start(self._accept)
        return self

    def __exit__(self, *exception: object) -> None:
        self._closed.set()
        for thread in list(self._threads):
            thread.join()
        assert self._listener is not None
        self._listener.close()

    def invite(self, invitation: Mapping[str, Any]) -> None:
        """Tell all nodes, those that still come too, what they need to join Ray."""
        self._invitation = dict(invitation)

    def wait(self, deadline_s: float, alarm: Callable[[], str | None]) -> None:
        """Until every node has joined Ray.

        Args:
            deadline_s: how long.
            alarm: says what is wrong at the head itself, None while nothing is.

        Raises:
            LaunchError: nodes are missing at the deadline, with their names; or one that was here is gone.
        """
        end, heard = time.monotonic() + deadline_s, time.monotonic()
        while True:
            problem = self.alarm() or alarm()
            if problem is not None:
                raise LaunchError(problem)
            missing = self.missing()
            if not missing:
                return
            now = time.monotonic()
            if now > end:
                raise LaunchError(f"{self._count()} nodes after {deadline_s:.0f} s: {'; '.join(missing)}")
            if now - heard > 30:
                heard = now
                self._say(f"{self._count()} nodes, {end - now:.0f} s left: {'; '.join(missing)}")
            time.sleep(POLL_S)

    def nodes(self) -> list[Node]:
        """Those that are here, without the head."""
        with self._lock:
            return [one.node for one in self._members.values() if one.gone is None]

    def missing(self) -> list[str]:
        """What is not there, one phrase for each; empty when the run is complete."""
        with self._lock:
            members = list(self._members.values())
        phrases = [
            f"{one.node.name} has come, but its Ray has not joined" for one in members if not one.ready and not one.gone
        ]
        if self._expected:
            here = [self._own, *(one.node for one in members)]
            phrases += [
                f"{name} has not come" for name in self._expected if not any(one.known_as([name]) for one in here)
            ]
        elif len(members) + 1 < self._nodes:
            names = ", ".join([self._own.name, *(one.node.name for one in members)])
            count = self._nodes - 1 - len(members)
            phrases.append(f"{count} {'has' if count == 1 else 'have'} not come, here are only {names}")
        return phrases + [f"{name} left again: {why}" for name, why in self._left.items()]

    def alarm(self) -> str | None:
        """What is wrong with a node that was here; None while nothing is."""
        with self._lock:
            lost = [one for one in self._members.values() if one.gone is not None]
        return f"node {lost[0].node.name} ({lost[0].node.host}): {lost[0].gone}" if lost else None

    def heard_since(self, moment: float) -> bool:
        """Whether every node that is here has been heard after `moment` (of time.monotonic)."""
        with self._lock:
            return all(one.channel.heard > moment for one in self._members.values() if one.gone is None)

    def part(self, status: str, text: str) -> list[str]:
        """Tell every node how the run ended, and take their logs; returns the names of those that could not be reached.

        A node that comes later is told the same.
        """
        self._outcome = {"kind": "over", "status": status, "text": text}
        end = time.monotonic() + PARTING_S
        while time.monotonic() < end:
            with self._lock:
                waiting = [one for one in self._members.values() if one.connected and not one.done]
            if not waiting:
                break
            time.sleep(POLL_S)
        with self._lock:
            return [one.node.name for one in self._members.values() if not one.done]

    def _count(self) -> str:
        with self._lock:
            return f"{1 + sum(one.ready for one in self._members.values())} of {self._nodes}"

    def _start(self, target: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        assert self._listener is not None
        while not self._closed.is_set():
            try:
                connection, peer = self._listener.accept()
            except TimeoutError:
                continue
            self._start(self._attend, connection, str(peer[0]))

    def _attend(self, connection: socket.socket, peer: str) -> None:
        """One node, from its coming to its going."""
        try:
            channel = Channel(connection, self._token, server=True)
        except ChannelError as error:
            self._say(f"turned away a caller from {peer}: {error}")
            return
        try:
            member = self._admit(channel, peer)
            if member is not None:
                self._serve(member)
        except ChannelError as error:
            self._say(f"a caller from {peer} left again: {error}")
        finally:
            channel.close()

    def _admit(self, channel: Channel, peer: str) -> _Member | None:
        try:
            message = channel.receive(IDENTITY_S) or {}
            node = Node(**message["node"])
            if not NAME.fullmatch(node.name):
                raise ValueError(node.name)
        except (KeyError, TypeError, ValueError):
            text = "it says who it is in another way than this code does; bring both to the same commit"
            self._say(f"turned away a caller from {peer}: {text}")
            channel.send({"kind": "refused", "text": text})
            return None
        with self._lock:
            reason = self._objection(node)
            if reason is None:
                member = self._members[node.name] = _Member(node, channel)
                self._left.pop(node.name, None)
        try:
            if reason is not None:
                self._say(f"turned away {node.name} ({node.host}): {reason}")
                channel.send({"kind": "refused", "text": reason})
                return None
            self._say(f"{node.name} ({node.host}, {node.dies} dies) has come")
            channel.send({"kind": "admitted"})
        except ChannelError as error:
            if reason is None:
                self._lose(member, str(error))
            return None
        return member

    def _objection(self, node: Node) -> str | None:
        """Why a node is not taken in; None when it is. The lock is held."""
        if self._outcome is not None:
            return f"the run is over ({self._outcome['status']})"
        if node.name == self._own.name or (node.name in self._members and self._members[node.name].gone is None):
            return f"a node named {node.name} is here already; nodes on one machine need a --node-name each"
        if self._expected and not node.known_as(self._expected):
            return f"it is not among the nodes of this run ({', '.join(self._expected)})"
        if node.name in self._members:
            return "it was here before and was lost, which ended the run; start it again once the head does"
        if len(self._members) + 1 >= self._nodes:
            here = ", ".join([self._own.name, *self._members])
            return f"one node too many: the run has {self._nodes}, and {here} are here"
        if node.dies != self._own.dies:
            return f"it has {node.dies} dies for the run, the head {self._own.dies}"
        for what, value in self._own.facts.items():
            if node.facts.get(what) != value:
                return f"its {what} is {node.facts.get(what)}, the head's is {value}; bring both to the same"
        changed = differing(self._own.settings, node.settings)
        if changed:
            return f"its run file differs from the head's: {'; '.join(changed)}"
        return None

    def _serve(self, member: _Member) -> None:
        invited = parted = False
        try:
            while not self._closed.is_set() and not member.done:
                if self._invitation is not None and not invited:
                    member.channel.send({"kind": "join", **self._invitation})
                    invited = True
                if self._outcome is not None and not parted:
                    member.channel.send(self._outcome)
                    parted = True
                message = member.channel.receive(POLL_S)
                # A node that ends its Ray and gathers its logs says nothing meanwhile.
                member.channel.beat(PARTING_S if parted else None)
                if message is not None:
                    self._hear(member, message)
        except (ChannelError, OSError) as error:
            self._lose(member, f"its launcher is gone: {error}")
        finally:
            member.connected = False

    def _lose(self, member: _Member, why: str) -> None:
        with self._lock:
            if member.done or member.gone is not None:
                return
            member.gone = why
            if not member.ready:
                del self._members[member.node.name]
                self._left[member.node.name] = why
        self._say(f"{member.node.name} is lost: {why}")

    def _hear(self, member: _Member, message: dict[str, Any]) -> None:
        kind = message.get("kind")
        if kind == "ready":
            member.ready = True
            self._say(f"{member.node.name} has joined Ray ({self._count()} nodes)")
        elif kind == "lost":
            self._lose(member, str(message.get("text")))
        elif kind == "log":
            write_chunk(self._logs / member.node.name, message)
        elif kind == "done":
            member.done = True


def differing(
    ours: Mapping[str, Any], theirs: Mapping[str, Any], words: tuple[str, str] = ("there", "here"), prefix: str = ""
) -> list[str]:
    """The keys in which two nested settings differ, with both values; `words` say which is whose.

    >>> differing({"train": {"rate": 1}}, {"train": {"rate": 2}})
    ['[train] rate is 2 there and 1 here']
    """
    found = []
    for key in [*ours, *(key for key in theirs if key not in ours)]:
        left, right = ours.get(key), theirs.get(key)
        if isinstance(left, Mapping) and isinstance(right, Mapping):
            found += differing(left, right, words, f"[{key}] ")
        elif left != right:
            found.append(f"{prefix}{key} is {right!r} {words[0]} and {left!r} {words[1]}")
    return found
