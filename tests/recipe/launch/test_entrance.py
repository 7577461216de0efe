# SPDX-License-Identifier: Apache-2.0
"""Those who call at the meeting and have no token: however many they are, a node of the run gets in."""

from __future__ import annotations

import contextlib
import dataclasses
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from recipe.launch import entrance
from recipe.launch.channel import Channel, shake_hands
from recipe.launch.entrance import Entrance
from recipe.launch.errors import BrokenChannelError, ChannelError
from recipe.launch.few_lines import FewLines
from recipe.launch.handshake import Handshake
from recipe.launch.messages import Node

TOKEN = b"the token of this test"
NODE = Node("10.0.0.2", "10.0.0.2", "host-2", 16, {}, {"code": "abc"}, {})
HEAD = """
import sys
from pathlib import Path
from recipe.launch.meeting import Meeting
from recipe.launch.messages import Node
own = Node("127.0.0.1", "127.0.0.1", "host-1", 16, {}, {"code": "abc"}, {})
port, token, logs = int(sys.argv[1]), sys.argv[2].encode(), Path(sys.argv[3])
with Meeting(own, port, token, 3, [], logs, lambda line: print(line, flush=True)):
    print("listening", flush=True)
    sys.stdin.read()
"""
MALFORMED = (b"GET / HTTP/1.1\r\n\r\n", b"\x00" * 4096, b"recipe-launch-1 " + b"0" * 32 + b"\n" + b"0" * 64 + b" {}\n")


@pytest.fixture
def many_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2500:
        pytest.skip("this user may not open 2,500 files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2500) if soft != resource.RLIM_INFINITY else soft, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def present_oneself(port: int) -> Channel:
    channel = shake_hands(socket.create_connection(("127.0.0.1", port)), TOKEN, server=False)
    channel.send({"node": dataclasses.asdict(NODE)})
    assert channel.receive(10.0) == {"kind": "admitted"}
    return channel


@pytest.mark.parametrize("addresses", [1, 50])
def test_a_node_gets_in_beside_1100_idle_and_250_malformed_callers(
    many_files: None, tmp_path: Path, addresses: int
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    head = subprocess.Popen(
        [sys.executable, "-c", HEAD, str(port), TOKEN.decode(), str(tmp_path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024)),
    )  # fmt: skip
    assert head.stdout is not None and head.stdout.readline() == "listening\n"
    with contextlib.ExitStack() as stack:
        for number in range(1350):
            caller = stack.enter_context(socket.socket())
            caller.bind((f"127.0.0.{1 + number % addresses}", 0))
            caller.settimeout(10)
            caller.connect(("127.0.0.1", port))
            if number >= 1100:
                with contextlib.suppress(OSError):
                    caller.sendall(MALFORMED[number % 3])
        channel = present_oneself(port)
        process = psutil.Process(head.pid)
        assert process.num_fds() < 200 and process.num_threads() < 8
        channel.close()
    out, _ = head.communicate(timeout=30)
    assert head.returncode == 0 and "10.0.0.2 (host-2, 16 dies) has come\n" in out, out
    assert len(out.splitlines()) < 40 and " more like it)" in out


@dataclasses.dataclass
class Door:
    """An entrance in this process, and what came of its callers."""

    port: int
    entrance: Entrance
    let_in: list[Channel] = dataclasses.field(default_factory=list)
    turned_away: list[str] = dataclasses.field(default_factory=list)

    def call(self) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port))
        connection.settimeout(10)
        return connection


class FailingListener:
    """A listener whose first `left` calls of accept fail."""

    left = 0
    error = OSError()

    def __init__(self, real: socket.socket) -> None:
        self._real = real

    def accept(self) -> tuple[socket.socket, object]:
        if self.left:
            self.left -= 1
            raise self.error
        return self._real.accept()

    def __getattr__(self, name: str) -> object:
        return getattr(self._real, name)


@pytest.fixture
def door() -> Iterator[Door]:
    listener = socket.create_server(("127.0.0.1", 0))

    def welcome(connection: socket.socket, handshake: Handshake, address: str) -> None:
        made.let_in.append(Channel(connection, handshake))

    def refuse(address: str, reason: str) -> None:
        made.turned_away.append(reason)

    door = Entrance(FailingListener(listener), TOKEN, welcome, refuse)  # type: ignore[arg-type]
    made = Door(listener.getsockname()[1], door)
    closed = threading.Event()
    thread = threading.Thread(target=made.entrance.run, args=(closed,), daemon=True)
    thread.start()
    yield made
    assert thread.is_alive(), "the entrance has ended by itself"
    closed.set()
    thread.join(10)
    for channel in made.let_in:
        channel.close()


def until(condition: object) -> None:
    end = time.monotonic() + 10
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, "timed out"
        time.sleep(0.01)


def test_byte_by_byte_is_no_way_to_stay(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entrance, "PROOF_S", 0.5)
    with door.call() as caller:
        with contextlib.suppress(OSError):
            for byte in b"recipe-launch-1 " + b"0" * 1000:
                caller.sendall(bytes([byte]))
                time.sleep(0.02)
        until(lambda: door.turned_away == ["it proved no token within 0 s"])


def test_a_slow_node_is_let_in(door: Door) -> None:
    handshake = Handshake(TOKEN, server=False)
    with door.call() as caller:
        for byte in handshake.greeting:
            caller.sendall(bytes([byte]))
        data = caller.recv(4096)
        while not handshake.done:
            while answer := handshake.take(data):
                # The first line after the proof comes in one piece with it.
                caller.sendall(answer)
                data = b""
            data = b"" if handshake.done else caller.recv(4096)
        Channel(caller, handshake).send({"node": 7})
        until(lambda: len(door.let_in) == 1)
        assert door.let_in[0].receive(5.0) == {"node": 7}


def test_a_long_line_is_not_kept(door: Door) -> None:
    with door.call() as caller:
        caller.sendall(b"x" * 200)
        until(lambda: door.turned_away == ["what answers there is no launcher of this recipe"])


@pytest.mark.parametrize("error", [ConnectionAbortedError(103, "aborted"), OSError(24, "files"), OSError(5, "odd")])
def test_no_error_of_the_system_ends_it(door: Door, monkeypatch: pytest.MonkeyPatch, error: OSError) -> None:
    with door.call() as idle:
        idle.recv(100)
        monkeypatch.setattr(FailingListener, "error", error)
        monkeypatch.setattr(FailingListener, "left", 3)
        shake_hands(door.call(), TOKEN, server=False).close()
        until(lambda: len(door.let_in) == 1)
        assert door.entrance._listener.left == 0  # type: ignore[attr-defined]


def test_another_program_and_a_silent_one_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recipe.launch.channel._HANDSHAKE_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        with pytest.raises(BrokenChannelError, match="said too little within 0 s"):
            shake_hands(socket.create_connection(silent.getsockname()), TOKEN, server=False)
        silent.accept()[0].close()
        connection = socket.create_connection(silent.getsockname())
        with silent.accept()[0] as stranger:
            stranger.sendall(b"220 mail.example ESMTP\r\n")
            with pytest.raises(ChannelError, match="no launcher of this recipe") as caught:
                shake_hands(connection, TOKEN, server=False)
        assert not isinstance(caught.value, BrokenChannelError)


def test_lines_of_strangers_are_few() -> None:
    printed: list[str] = []
    lines = FewLines(printed.append, first=2, pause_s=0.2)
    for number in range(1000):
        lines.add(f"line {number}")
    assert printed[:2] == ["line 0", "line 1"] and len(printed) < 10
    lines.flush(at_once=True)
    assert printed[-1].startswith("line 999")
    before = len(printed)
    lines.flush(at_once=True)
    assert len(printed) == before
