# SPDX-License-Identifier: Apache-2.0
"""The run's temporary directory: for its user only, short enough for sockets, gone at the end; what is kept of it."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

import pytest

from recipe.launch.node_logs import chunks
from recipe.launch.ray_logs import keep_ray_logs
from recipe.launch.temporary import remove_temp, run_temp
from recipe.runfile.paths import RunPaths

# The longest that Ray 2.60 puts below its directory: date, microseconds, a pid of 7 digits, a second node's store.
RAYS_LONGEST = "session_2026-11-28_23-28-07_123456_4194304/sockets/plasma_store.1"
VLLMS_LONGEST = "12345678-1234-1234-1234-123456789012"
SOCKET_BYTES = 107


def test_only_its_user_can_enter_it(tmp_path: Path) -> None:
    with run_temp() as temp:
        paths = RunPaths(tmp_path, "x", temp)
        assert stat.S_IMODE(temp.stat().st_mode) == 0o700
        assert paths.ray_temp.parent == paths.scratch.parent == temp and paths.scratch.is_dir()
        (paths.ray_temp / "session").mkdir(parents=True, mode=0o777)
    assert not temp.exists()


@pytest.mark.parametrize("length", [5, 22, 23, 24, 80])
def test_sockets_have_room(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as base:
        parent = Path(base, "x" * max(1, length - len(base) - 1)) if length > len(base) else Path("/tmp")
        parent.mkdir(exist_ok=True)
        monkeypatch.setattr(tempfile, "tempdir", str(parent))
        with run_temp() as temp:
            paths = RunPaths(Path(), "x", temp)
            assert len(str(paths.ray_temp / RAYS_LONGEST)) <= SOCKET_BYTES
            assert len(str(paths.scratch / VLLMS_LONGEST)) <= SOCKET_BYTES
            assert (temp.parent == parent) == (len(str(parent)) <= 23)


def test_only_what_was_made_here_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name is read from a file, in which others may have written."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    ours, foreign, deeper = tmp_path / "tmp" / "grpo-x", tmp_path / "tmp" / "other", tmp_path / "tmp" / "a" / "grpo-y"
    for directory in (ours, foreign, deeper):
        directory.mkdir(parents=True)
    link = tmp_path / "tmp" / "grpo-link"
    link.symlink_to(foreign)
    for path in (ours, foreign, deeper, link, tmp_path / "tmp", tmp_path / "nowhere", Path()):
        remove_temp(path)
    assert not ours.exists()
    assert foreign.is_dir() and deeper.is_dir() and link.is_symlink()


@pytest.fixture
def paths(tmp_path: Path) -> RunPaths:
    made = RunPaths(tmp_path / "run", "x", tmp_path / "temp")
    (made.ray_temp / "session_2026-11-28" / "logs").mkdir(parents=True)
    (made.ray_temp / "session_latest").symlink_to(made.ray_temp / "session_2026-11-28")
    return made


def kept(paths: RunPaths) -> dict[str, str]:
    keep_ray_logs(paths)
    return {path.name: path.read_text() for path in (paths.run_dir / "logs" / "ray").glob("*")}


def test_rays_logs_are_kept_and_no_link_is_followed(paths: RunPaths, tmp_path: Path) -> None:
    logs, secret = paths.ray_temp / "session_2026-11-28" / "logs", tmp_path / "id_ed25519"
    secret.write_text("PRIVATE")
    (logs / "raylet.out").write_text("up")
    (logs / "worker.err").write_text("oops")
    (logs / "empty.log").touch()
    (logs / "events.json").write_text("{}")
    (logs / "gcs_server.out").symlink_to(secret)
    (logs / "old.out").mkdir()
    os.mkfifo(logs / "pipe.out")
    assert kept(paths) == {"raylet.out": "up", "worker.err": "oops"}


@pytest.mark.parametrize("part", ["session_2026-11-29", "session_2026-11-28/logs"])
def test_a_link_in_the_place_of_a_directory_is_not_followed(paths: RunPaths, tmp_path: Path, part: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "logs").mkdir(parents=True)
    for path in (elsewhere / "secret.log", elsewhere / "logs" / "secret.log"):
        path.write_text("PRIVATE")
    (paths.ray_temp / "session_2026-11-28" / "logs").rmdir()
    (paths.ray_temp / part).symlink_to(elsewhere)
    assert kept(paths) == {}


def test_logs_that_are_sent_follow_no_link_either(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("PRIVATE")
    logs = tmp_path / "node" / "logs"
    logs.mkdir(parents=True)
    (logs / "a.log").write_text("a")
    (logs / "b.log").symlink_to(tmp_path / "secret")
    os.mkfifo(logs / "c.log")
    assert [message["file"] for message in chunks(tmp_path / "node")] == ["logs/a.log"]
