# SPDX-License-Identifier: Apache-2.0
"""What a worker looks at before it starts Ray, and that it tries again where that was too slow."""

from __future__ import annotations

import dataclasses
import io
import re
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from recipe.clock import Clock
from recipe.launch import ray_node, worker
from recipe.launch.cluster import RUN_MARK
from recipe.launch.meeting import Meeting
from recipe.launch.network import require_answer
from recipe.launch.node import find_place, present
from recipe.runfile.config import load
from recipe.runfile.errors import LaunchError
from recipe.runfile.paths import REPO
from tests.scripts.slow_ray import SLOW_RAY


@pytest.fixture
def gcs(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(worker, "SIGHT_S", 0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("mark", [None, "an earlier run"])
def test_checkpoints_in_a_directory_of_each_host_are_refused(gcs: str, tmp_path: Path, mark: str | None) -> None:
    """Each node would keep its own part of every checkpoint, and no run could go on from them."""
    if mark is not None:
        (tmp_path / RUN_MARK).write_text(mark)
    invitation = {"gcs": gcs, "checkpoints": str(tmp_path), "run_id": "this run"}
    with pytest.raises(LaunchError, match=r"is not the head's directory of that name.* storage that all nodes share"):
        worker._require_usable(invitation)
    (tmp_path / RUN_MARK).write_text("this run")
    worker._require_usable(invitation)


def test_a_run_without_checkpoints_needs_no_shared_storage(gcs: str) -> None:
    worker._require_usable({"gcs": gcs, "checkpoints": "", "run_id": "this run"})


def test_a_port_that_does_not_answer_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with pytest.raises(LaunchError) as caught:
        require_answer("127.0.0.1", port, "Ray's GCS on the head", limit_s=0.5)
    assert str(caught.value).startswith(
        f"Ray's GCS on the head: 127.0.0.1 port {port} does not answer (Connection refused); is it closed"
    )


def test_a_worker_whose_ray_is_too_slow_comes_all_the_same(
    gcs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many that start at one moment on a slow disk: each is ended by Ray's own limit while the head still waits."""
    with socket.create_server(("127.0.0.2", 0)) as probe:
        port = probe.getsockname()[1]
    (tmp_path / "two.toml").write_text(
        re.sub("^nodes = 1$", f'nodes = 2\nray_port = {port - 1}\nhead = "127.0.0.2"',
               (REPO / "configs" / "sim.toml").read_text(encoding="utf-8"), flags=re.MULTILINE),
        encoding="utf-8",
    )  # fmt: skip
    config, token, lines = load(tmp_path / "two.toml"), b"the token of this test", list[str]()
    monkeypatch.setenv("RECIPE_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(ray_node, "PAUSE_S", 0.1)
    monkeypatch.setattr(
        worker, "start_command",
        lambda config, name, address, ports, temp, gcs, dashboard: [
            sys.executable, "-c", SLOW_RAY, str(temp), str(tmp_path / "starts"), "1",
        ],
    )  # fmt: skip
    own = dataclasses.replace(present(config, find_place(config), token), name="head")
    place = find_place(config, worker=True, address="127.0.0.3", name="slow")
    out = io.StringIO()
    with Meeting(own, port, token, 2, [], tmp_path / "nodes", lines.append) as meeting:
        meeting.invite({"gcs": gcs, "run_dir": "/elsewhere", "run_id": "x", "checkpoints": ""})
        ended: list[object] = []

        def lead() -> None:
            meeting.wait(60, lambda: None)
            ended.extend(meeting.part("finished", ""))

        leading = threading.Thread(target=lead, daemon=True)
        leading.start()
        worker.work(config, place, token, tmp_path / "token", Clock(out))
        leading.join(30)
    assert ended == [] and not leading.is_alive()
    assert "slow: Ray's own limit of 30 s has ended its start; starting it again (try 2)" in lines
    assert "starting it again (try 2)" in out.getvalue()
    assert any(line.startswith("slow has joined Ray") for line in lines)


@pytest.mark.parametrize("message", [{"kind": 7}, {}, {"kind": "join", "gcs": "x"}, {"kind": "over"}], ids=str)
def test_a_head_that_speaks_otherwise_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, message: dict[str, object]
) -> None:
    from recipe.launch.errors import ChannelError
    from recipe.launch.messages import from_head

    with pytest.raises(ChannelError, match="in another way than this code does; bring both to the same commit"):
        from_head(message)
