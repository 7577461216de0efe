# SPDX-License-Identifier: Apache-2.0
"""Where the nodes of a run meet: the head's launcher listens, the workers' launchers come and stay connected.

A worker says who it is and what it would run. It is turned away when the run is complete without it, when it is not on
the list, or when it holds another run file or other code than the head; nothing of Ray has been started for it by then.
Those that are taken in learn where to join Ray, say when they have, and learn how the run ended. A connection that
breaks or falls silent is a node that is gone.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recipe.launch.channel import Channel
from recipe.launch.entrance import Entrance
from recipe.launch.errors import BrokenChannelError, ChannelError
from recipe.launch.few_lines import FewLines
from recipe.launch.handshake import Handshake
from recipe.launch.messages import Node, node_in
from recipe.launch.node_logs import write_chunk
from recipe.runfile.errors import LaunchError
from recipe.runfile.typed_toml import shown
from recipe.text import printable

POLL_S = 0.2
# A caller that holds the token has this long to say who it is.
IDENTITY_S = 10.0
# What a node may take after the end of the run to stop its Ray and send its logs.
PARTING_S = 90.0
# Threads beyond one per node: for callers that hold the token but are turned away, or have not presented themselves.
_MORE_THREADS = 32
_SHOWN_DIFFERENCES = 8
_LONGEST_TEXT = 1000
Say = Callable[[str], None]


@dataclass
class _Member:
    node: Node
    channel: Channel
    ready: bool = False
    gone: str | None = None
    done: bool = False
    connected: bool = True
    log_lost: bool = False


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
        # Nodes that left before they had joined Ray, which may come again, and why they left.
        self._left: dict[str, str] = {}
        self._invitation: dict[str, Any] | None = None
        self._outcome: dict[str, Any] | None = None
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._threads: list[threading.Thread] = []
        # Counted apart, so that a flood of callers without the token hides no message about a node.
        self._strangers, self._turned_away = FewLines(say), FewLines(say)

    def __enter__(self) -> Meeting:
        try:
            listener = socket.create_server((self._own.address, self._port), backlog=256)
            entrance = Entrance(listener, self._token, self._welcome, self._refuse)
        except OSError as error:
            raise LaunchError(f"cannot listen on {self._own.address}:{self._port}: {error.strerror}") from None
        self._entrance = threading.Thread(target=entrance.run, args=(self._closed,), daemon=True)
        self._entrance.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._closed.set()
        self._entrance.join()
        for thread in self._threads:
            thread.join()
        for lines in (self._strangers, self._turned_away):
            lines.flush(at_once=True)

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
            return [member.node for member in self._members.values() if member.gone is None]

    def missing(self) -> list[str]:
        """What is not there, one phrase for each; empty when the run is complete."""
        with self._lock:
            members = list(self._members.values())
        phrases = [
            f"{member.node.name} has come, but its Ray has not joined"
            for member in members
            if not member.ready and not member.gone
        ]
        if self._expected:
            nodes = [self._own, *(member.node for member in members)]
            phrases += [
                f"{name} has not come" for name in self._expected if not any(node.known_as([name]) for node in nodes)
            ]
        elif len(members) + 1 < self._nodes:
            names = ", ".join([self._own.name, *(member.node.name for member in members)])
            count = self._nodes - 1 - len(members)
            phrases.append(f"{count} {'has' if count == 1 else 'have'} not come, here are only {names}")
        return phrases + [f"{name} left again: {why}" for name, why in self._left.items()]

    def alarm(self) -> str | None:
        """What is wrong with a node that was here; None while nothing is."""
        with self._lock:
            lost = [member for member in self._members.values() if member.gone is not None]
        return f"node {lost[0].node.name} ({lost[0].node.host}): {lost[0].gone}" if lost else None

    def heard_since(self, moment: float) -> bool:
        """Whether every node that is here has been heard after `moment` (of time.monotonic)."""
        with self._lock:
            return all(member.channel.heard > moment for member in self._members.values() if member.gone is None)

    def part(self, status: str, text: str) -> list[str]:
        """Tell every node how the run ended, and take their logs; returns the names of those that could not be reached.

        A node that comes later is told the same.
        """
        self._outcome = {"kind": "over", "status": status, "text": text}
        end = time.monotonic() + PARTING_S
        while time.monotonic() < end:
            with self._lock:
                waiting = [member for member in self._members.values() if member.connected and not member.done]
            if not waiting:
                break
            time.sleep(POLL_S)
        with self._lock:
            return [member.node.name for member in self._members.values() if not member.done]

    def _count(self) -> str:
        with self._lock:
            return f"{1 + sum(member.ready for member in self._members.values())} of {self._nodes}"

    def _refuse(self, address: str, reason: str) -> None:
        self._strangers.add(f"turned away a caller from {address}: {reason}")

    def _welcome(self, connection: socket.socket, handshake: Handshake, address: str) -> None:
        """A holder of the token has come; called in the entrance's thread."""
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        thread = threading.Thread(target=self._attend, args=(Channel(connection, handshake), address), daemon=True)
        try:
            if len(self._threads) > self._nodes + _MORE_THREADS:
                raise RuntimeError("too many callers that hold the token")
            thread.start()
            self._threads.append(thread)
        except RuntimeError as error:  # also where the system gives no thread
            connection.close()
            self._turned_away.add(f"turned away a caller from {address}: {error}")

    def _attend(self, channel: Channel, address: str) -> None:
        """One node, from its coming to its going."""
        try:
            member = self._admit(channel, address)
            if member is not None:
                self._serve(member)
        except ChannelError as error:
            self._turned_away.add(f"a caller from {address} left again: {error}")
        finally:
            channel.close()

    def _admit(self, channel: Channel, address: str) -> _Member | None:
        try:
            node = node_in(channel.receive(IDENTITY_S) or {})
        except ValueError:
            text = "it says who it is in another way than this code does; bring both to the same commit"
            self._turned_away.add(f"turned away a caller from {address}: {text}")
            channel.send({"kind": "refused", "text": text})
            return None
        with self._lock:
            reason = self._objection(node)
            if reason is None:
                member = self._members[node.name] = _Member(node, channel)
                self._left.pop(node.name, None)
        try:
            if reason is not None:
                self._turned_away.add(f"turned away {node.name} ({node.host}): {reason}")
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
            names = ", ".join([self._own.name, *self._members])
            return f"one node too many: the run has {self._nodes}, and {names} are here"
        if node.dies != self._own.dies:
            return f"it has {node.dies} dies for the run, the head {self._own.dies}"
        for what, value in self._own.facts.items():
            if node.facts.get(what) != value:
                return f"its {what} is {_named(node.facts.get(what))}, the head's is {value}; bring both to the same"
        changed = differing(self._own.settings, node.settings)
        if changed:
            more = len(changed) - _SHOWN_DIFFERENCES
            tail = f"; and {more} more" if more > 0 else ""
            return f"its run file differs from the head's: {'; '.join(changed[:_SHOWN_DIFFERENCES])}{tail}"
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
        except BrokenChannelError as error:
            self._lose(member, f"its launcher is gone: {error}")
        except Exception as error:  # whatever it sent: the head must know that nobody listens to this node any more
            reason = str(error) if isinstance(error, ChannelError) else f"{type(error).__name__}: {error}"
            self._lose(member, f"its launcher cannot be listened to: {reason}")
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
            self._lose(member, printable(str(message.get("text")))[:_LONGEST_TEXT])
        elif kind == "note":
            self._say(f"{member.node.name}: {printable(str(message.get('text')))[:_LONGEST_TEXT]}")
        elif kind == "log":
            self._keep_log(member, message)
        elif kind == "done":
            member.done = True

    def _keep_log(self, member: _Member, message: dict[str, Any]) -> None:
        try:
            write_chunk(self._logs / member.node.name, message)
        except (ValueError, OSError) as error:
            if not member.log_lost:
                self._say(f"not all logs of {member.node.name} are kept: {error}")
            member.log_lost = True


def _named(fact: object) -> str:
    return fact[:64] if isinstance(fact, str) else shown(fact)


def differing(
    ours: Mapping[str, Any], theirs: Mapping[str, Any], words: tuple[str, str] = ("there", "here"), prefix: str = ""
) -> list[str]:
    """The keys in which two nested settings differ, with both values; `words` say which is whose.

    >>> differing({"train": {"rate": 1}}, {"train": {"rate": 2}})
    ['[train] rate is 2 there and 1 here']
    """
    differences = []
    for key in [*ours, *(key for key in theirs if key not in ours)]:
        left, right = ours.get(key), theirs.get(key)
        if isinstance(left, Mapping) and isinstance(right, Mapping):
            differences += differing(left, right, words, f"[{key[:64]}] ")
        elif left != right:
            differences.append(f"{prefix}{key[:64]} is {shown(right)} {words[0]} and {shown(left)} {words[1]}")
    return differences
