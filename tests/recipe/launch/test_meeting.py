# SPDX-License-Identifier: Apache-2.0
"""The head's meeting and the channel below it: who is taken in, who is turned away, and who is noticed to be gone."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import itertools
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recipe.launch import channel as channels
from recipe.launch.channel import Channel, shake_hands
from recipe.launch.errors import ChannelError
from recipe.launch.handshake import line_of
from recipe.launch.meeting import Meeting, differing
from recipe.launch.messages import Node
from recipe.launch.node_logs import chunks, write_chunk
from recipe.runfile.errors import LaunchError

TOKEN = b"the token of this test"
FACTS = {"code": "abc", "Python": "3.11", "Ray": "2.60"}


def node(name: str, **changes: Any) -> Node:
    fields = {"address": name, "host": f"host-{name}", "dies": 16, "facts": FACTS, "settings": {"run": {"steps": 5}}}
    return Node(name=name, daemons={}, **(fields | changes))


class Head:
    def __init__(self, tmp_path: Path, nodes: int, expected: list[str]) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = int(probe.getsockname()[1])
        self.said: list[str] = []
        self.logs = tmp_path / "nodes"
        own = node("10.0.0.1", address="127.0.0.1")
        self.meeting = Meeting(own, self.port, TOKEN, nodes, expected, self.logs, self.said.append)
        self.open: list[Channel] = []

    def call(self, token: bytes = TOKEN) -> Channel:
        self.open.append(shake_hands(socket.create_connection(("127.0.0.1", self.port)), token, server=False))
        return self.open[-1]

    def come(self, who: Node) -> tuple[Channel, dict[str, Any]]:
        """A launcher that presents itself; its channel and the answer."""
        channel = self.call()
        channel.send({"node": dataclasses.asdict(who)})
        answer = channel.receive(5.0)
        assert answer is not None
        return channel, answer

    def join(self, name: str) -> Channel:
        channel, answer = self.come(node(name))
        assert answer == {"kind": "admitted"}
        assert channel.receive(5.0) == {"kind": "join", "gcs": "10.0.0.1:6379"}
        channel.send({"kind": "ready"})
        return channel


Open = Callable[..., Head]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Open]:
    heads: list[Head] = []

    def make(nodes: int = 3, expected: tuple[str, ...] = ()) -> Head:
        heads.append(Head(tmp_path, nodes, list(expected)))
        heads[-1].meeting.__enter__()
        heads[-1].meeting.invite({"gcs": "10.0.0.1:6379"})
        return heads[-1]

    yield make
    for head in heads:
        for channel in head.open:
            channel.close()
        head.meeting.__exit__()


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end, "timed out"
        time.sleep(0.02)


def test_nodes_meet_run_and_part(opened: Open, tmp_path: Path) -> None:
    head = opened()
    first, second = head.join("10.0.0.2"), head.join("10.0.0.3")
    head.meeting.wait(5, lambda: None)
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "ray.log").write_text("all of it")
    for message in chunks(tmp_path / "own"):
        first.send(message)
    for channel in (first, second):
        channel.send({"kind": "done"})
    assert head.meeting.part("finished", "") == []
    assert (head.logs / "10.0.0.2" / "ray.log").read_text() == "all of it"


def test_who_is_missing_is_said_by_name(opened: Open) -> None:
    head = opened(nodes=4, expected=("10.0.0.1", "host-10.0.0.2", "10.0.0.3", "10.0.0.4"))
    head.join("10.0.0.2")
    _, answer = head.come(node("10.0.0.3"))  # comes, but its Ray never joins
    assert answer["kind"] == "admitted"
    until(lambda: "10.0.0.2 has joined Ray (2 of 4 nodes)" in head.said)
    with pytest.raises(LaunchError) as caught:
        head.meeting.wait(0.3, lambda: None)
    assert str(caught.value) == (
        "2 of 4 nodes after 0 s: 10.0.0.3 has come, but its Ray has not joined; 10.0.0.4 has not come"
    )


def test_a_count_is_said_where_no_names_are_known(opened: Open) -> None:
    head = opened(nodes=4)
    head.join("10.0.0.2")
    until(lambda: head.meeting.missing() == ["2 have not come, here are only 10.0.0.1, 10.0.0.2"])


@pytest.mark.parametrize(
    ("who", "reason"),
    [
        (node("10.0.0.4"), "one node too many: the run has 3, and 10.0.0.1, 10.0.0.2, 10.0.0.3 are here"),
        (node("10.0.0.2"), "a node named 10.0.0.2 is here already; nodes on one machine need a --node-name each"),
        (node("10.0.0.1"), "a node named 10.0.0.1 is here already"),
    ],
)
def test_a_run_that_is_complete_takes_nobody_in(opened: Open, who: Node, reason: str) -> None:
    head = opened()
    head.join("10.0.0.2"), head.join("10.0.0.3")
    _, answer = head.come(who)
    assert answer["kind"] == "refused" and answer["text"].startswith(reason)
    assert head.meeting.alarm() is None, "the run goes on"
    assert any(line.startswith(f"turned away {who.name} (host-{who.name}): ") for line in head.said)


@pytest.mark.parametrize(
    ("who", "reason"),
    [
        (node("10.0.0.9"), "it is not among the nodes of this run (10.0.0.1, 10.0.0.2, 10.0.0.3)"),
        (node("10.0.0.2", dies=8), "it has 8 dies for the run, the head 16"),
        (node("10.0.0.2", facts=FACTS | {"Ray": "2.41"}), "its Ray is 2.41, the head's is 2.60"),
        (node("10.0.0.2", facts=FACTS | {"code": "def"}), "its code is def, the head's is abc; bring both to the same"),
        (
            node("10.0.0.2", settings={"run": {"steps": 6}}),
            "its run file differs from the head's: [run] steps is 6 there and 5 here",
        ),
    ],
)
def test_who_would_run_something_else_is_turned_away(opened: Open, who: Node, reason: str) -> None:
    head = opened(expected=("10.0.0.1", "10.0.0.2", "10.0.0.3"))
    _, answer = head.come(who)
    assert (answer["kind"], answer["text"]) == ("refused", reason) or answer["text"].startswith(reason)


def test_a_node_that_leaves_before_it_has_joined_may_come_again(opened: Open) -> None:
    head = opened(nodes=2)
    channel, _ = head.come(node("10.0.0.2"))
    channel.close()
    until(lambda: any("left again: its launcher is gone" in line for line in head.meeting.missing()))
    assert head.meeting.alarm() is None
    head.join("10.0.0.2")
    head.meeting.wait(5, lambda: None)


@pytest.mark.parametrize("how", ["says so", "closes", "falls silent"])
def test_a_node_that_is_lost_raises_the_alarm(opened: Open, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if how == "falls silent":
        monkeypatch.setattr(channels, "SILENCE_S", 0.5)
    head = opened(nodes=2)
    channel = head.join("10.0.0.2")
    if how == "says so":
        channel.send({"kind": "lost", "text": "its Ray ended: raylet"})
    elif how == "closes":
        channel.close()
    until(head.meeting.alarm)
    expected = {"says so": "its Ray ended: raylet", "closes": "its launcher is gone: the connection"}
    expected["falls silent"] = "its launcher is gone: nothing was heard of it for 0 s"
    assert str(head.meeting.alarm()).startswith(f"node 10.0.0.2 (host-10.0.0.2): {expected[how]}")


def test_who_has_been_heard_is_known(opened: Open) -> None:
    head = opened(nodes=3)
    first, second = head.join("10.0.0.2"), head.join("10.0.0.3")
    until(lambda: head.meeting.missing() == [])
    moment = time.monotonic()
    first.send({"kind": "beat"})
    time.sleep(0.5)
    assert not head.meeting.heard_since(moment), "10.0.0.3 has been silent"
    second.send({"kind": "beat"})
    until(lambda: head.meeting.heard_since(moment))


@pytest.mark.parametrize("says", [{"kind": "ready"}, {"node": {"name": "10.0.0.2", "of": "old code"}}, {"node": 7}])
def test_who_speaks_otherwise_is_told_so(opened: Open, says: dict[str, Any]) -> None:
    head = opened()
    channel = head.call()
    channel.send(says)
    text = "it says who it is in another way than this code does; bring both to the same commit"
    assert channel.receive(5.0) == {"kind": "refused", "text": text}
    until(lambda: head.said == [f"turned away a caller from 127.0.0.1: {text}"])


def test_a_node_that_is_gone_is_not_waited_for_at_the_end(opened: Open) -> None:
    head = opened(nodes=2)
    head.join("10.0.0.2").close()
    until(head.meeting.alarm)
    unreached: list[str] = []
    parting = threading.Thread(target=lambda: unreached.extend(head.meeting.part("failed", "")), daemon=True)
    parting.start()
    parting.join(20)
    assert not parting.is_alive() and unreached == ["10.0.0.2"]


def test_a_node_that_takes_long_to_end_its_ray_is_waited_for(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    head = opened(nodes=2)
    channel = head.join("10.0.0.2")
    head.meeting.wait(5, lambda: None)
    unreached: list[str] = []
    parting = threading.Thread(target=lambda: unreached.extend(head.meeting.part("failed", "")), daemon=True)
    parting.start()
    while (channel.receive(5.0) or {}).get("kind") != "over":
        pass
    monkeypatch.setattr(channels, "SILENCE_S", 0.5)
    time.sleep(1.5)  # longer than a node may be silent in the run
    channel.send({"kind": "done"})
    parting.join(10)
    assert not parting.is_alive() and unreached == []


def test_another_token_is_told_from_a_broken_line(opened: Open) -> None:
    head = opened()
    with pytest.raises(ChannelError, match="holds another token: copy the head's token file to every node"):
        head.call(token=b"a guess of somebody else")
    until(lambda: any("holds another token" in line for line in head.said))
    assert head.meeting.missing() == ["2 have not come, here are only 10.0.0.1"]


@pytest.mark.parametrize(
    "bytes_sent", [b"GET / HTTP/1.1\r\n\r\n", b"recipe-launch-1 short\n", b"\x00" * 64 + b"\n", b""]
)
def test_a_stranger_on_the_port_is_shown_the_door(opened: Open, bytes_sent: bytes) -> None:
    head = opened()
    with socket.create_connection(("127.0.0.1", head.port)) as stranger:
        stranger.sendall(bytes_sent)
        stranger.shutdown(socket.SHUT_WR)
        until(lambda: any(line.startswith("turned away a caller from 127.0.0.1") for line in head.said))
    head.join("10.0.0.2")


def test_a_line_cannot_be_replayed() -> None:
    # Everything the client sends passes through this test's hands.
    (left, right), (between, outer) = _pair(), _pair()
    made: list[Channel] = []
    server = threading.Thread(target=lambda: made.append(shake_hands(right, TOKEN, server=True)))
    server.start()
    client_side: list[Channel] = []
    client = threading.Thread(target=lambda: client_side.append(shake_hands(outer, TOKEN, server=False)))
    client.start()
    for _ in range(2):  # greeting and first line, both ways
        left.sendall(_line(between))
        between.sendall(_line(left))
    server.join(10)
    client.join(10)
    client_side[0].send({"kind": "ready"})
    line = _line(between)
    left.sendall(line)
    assert made[0].receive(5.0) == {"kind": "ready"}
    left.sendall(line)
    with pytest.raises(ChannelError, match="another token"):
        made[0].receive(5.0)
    for end in (left, right, between, outer):
        end.close()


def _pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        near = socket.create_connection(server.getsockname())
        far, _ = server.accept()
    near.settimeout(10)
    return near, far


def _line(connection: socket.socket) -> bytes:
    data = b""
    while not data.endswith(b"\n"):
        data += connection.recv(1)
    return data


@pytest.mark.parametrize("name", ["../../escape.log", "/tmp/escape.log", "logs/x.sh"])
def test_logs_stay_where_they_belong(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="is no name of a log"):
        write_chunk(tmp_path / "node", {"file": name, "first": True, "data": "eA=="})
    assert list(tmp_path.rglob("*")) == []


@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=3_000))
def test_logs_arrive_as_they_are(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    directory = tmp_path_factory.mktemp("logs")
    (directory / "own" / "ray").mkdir(parents=True)
    (directory / "own" / "ray" / "raylet.out").write_bytes(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("recipe.launch.node_logs._CHUNK", 1000)
        patch.setattr("recipe.launch.node_logs.LARGEST_FILE", 2500)
        for message in [*chunks(directory / "own")] * 2:  # sent twice, they are there once
            write_chunk(directory / "head", message)
    arrived = directory / "head" / "ray" / "raylet.out"
    assert (arrived.read_bytes() if content else b"") == content[-2500:]


BAD_LINES = {
    "no JSON": b"{",
    "no UTF-8": b'{"kind": "\xff"}',
    "no object": b"[1]",
    "not a number": b'{"kind": "ready", "time": NaN}',
    "a number of thousands of digits": b'{"kind": ' + b"9" * 5000 + b"}",
    "brackets in brackets": b"[" * 10**5,
}
ODD_MESSAGES: dict[str, dict[str, Any]] = {
    "no kind": {},
    "a kind that is no text": {"kind": [{}]},
    "a log without content": {"kind": "log", "file": "x.log"},
    "a log that is no base64": {"kind": "log", "file": "x.log", "first": True, "data": "?"},
    "a log with a name that is too long": {"kind": "log", "file": "x" * 5000 + ".log", "first": True, "data": ""},
    "a log with a zero in its name": {"kind": "log", "file": "x\0.log", "first": True, "data": ""},
    "a log with half a character in its name": {"kind": "log", "file": "\ud800.log", "first": True, "data": ""},
}


@pytest.mark.parametrize("line", BAD_LINES.values(), ids=list(BAD_LINES))
@pytest.mark.parametrize("known", [False, True])
def test_a_holder_of_the_token_that_cannot_be_read_is_lost(opened: Open, known: bool, line: bytes) -> None:
    head = opened(nodes=3)
    channel = head.join("10.0.0.2") if known else head.call()
    send_raw(channel, line)
    if known:
        until(head.meeting.alarm)
        assert "its launcher cannot be listened to: it sends a line that is no JSON" in str(head.meeting.alarm())
    until(lambda: any("it sends a line that is no JSON" in line for line in head.said))
    head.join("10.0.0.3")


@pytest.mark.parametrize("message", ODD_MESSAGES.values(), ids=list(ODD_MESSAGES))
def test_an_odd_message_of_a_node_changes_nothing(opened: Open, message: dict[str, Any]) -> None:
    head = opened(nodes=2)
    channel = head.join("10.0.0.2")
    channel.send(message)
    channel.send(message)
    channel.send({"kind": "log", "file": "good.log", "first": True, "data": "eA=="})
    channel.send({"kind": "done"})
    assert head.meeting.part("finished", "") == [] and head.meeting.alarm() is None
    assert (head.logs / "10.0.0.2" / "good.log").read_text() == "x"
    told = [line for line in head.said if line.startswith("not all logs of 10.0.0.2 are kept: ")]
    assert len(told) == (message.get("kind") == "log")


def test_a_full_disk_under_the_logs_ends_nothing(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(directory: Path, message: dict[str, Any]) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("recipe.launch.meeting.write_chunk", full)
    head = opened(nodes=2)
    channel = head.join("10.0.0.2")
    for _ in range(3):
        channel.send({"kind": "log", "file": "a.log", "first": True, "data": "eA=="})
    channel.send({"kind": "done"})
    assert head.meeting.part("finished", "") == []
    assert [line for line in head.said if "No space left" in line] == [
        "not all logs of 10.0.0.2 are kept: [Errno 28] No space left on device"
    ]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
NODE_FIELDS = st.fixed_dictionaries(
    {},
    optional={
        **{key: JSON for key in ("address", "host", "dies", "facts", "settings", "daemons")},
        "name": st.just("10.0.0.2") | JSON,
    },
)
SAID = st.dictionaries(
    st.sampled_from(["kind", "text", "file", "first", "data", "node"]),
    JSON | st.sampled_from(["ready", "lost", "log", "done"]) | NODE_FIELDS,
)


def test_whatever_a_holder_of_the_token_says_the_next_node_is_let_in(opened: Open) -> None:
    head = opened(nodes=10**6)
    names = (f"10.{number >> 8}.{number & 255}.7" for number in itertools.count())

    @settings(max_examples=60, deadline=None)
    @given(first=SAID, after=st.lists(SAID, max_size=3), changes=NODE_FIELDS)
    def tried(first: dict[str, Any], after: list[dict[str, Any]], changes: dict[str, Any]) -> None:
        name = next(names)
        stranger, changed, known = head.call(), head.call(), head.join(name)
        stranger.send(first)
        changed.send({"node": dataclasses.asdict(node("10.0.0.2")) | changes})
        with contextlib.suppress(ChannelError):  # it said that it was done, or lost
            for message in after:
                known.send(message)
        for channel in (stranger, changed, known):
            channel.close()

    tried()
    head.join("10.0.0.3")
    assert head.meeting._entrance.is_alive()


def send_raw(channel: Channel, text: bytes) -> None:
    """A line that is signed as all are, with any content."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("recipe.launch.channel.line_of", lambda key, way, number, _: line_of(key, way, number, text))
        channel.send({})


def test_differences_are_named_with_their_section() -> None:
    ours = {"run": {"steps": 5}, "model": {"recompute": None}, "list": [1]}
    theirs = {"run": {"steps": 5, "new": True}, "model": {"recompute": {"layers": 8}}, "list": [1]}
    assert differing(ours, theirs) == [
        "[run] new is True there and None here",
        "[model] recompute is {'layers': 8} there and None here",
    ]
