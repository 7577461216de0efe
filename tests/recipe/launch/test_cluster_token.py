# SPDX-License-Identifier: Apache-2.0
"""The cluster's token: who makes it, who waits for it, and whose is not taken."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from recipe.launch import cluster_token
from recipe.launch.cluster_token import read_token
from recipe.runfile.errors import ConfigError, LaunchError
from recipe.runfile.paths import REPO


def read(path: Path, make: bool = False) -> bytes:
    return read_token(path, make=make, deadline_s=0, say=lambda line: None)


def test_the_head_makes_the_token_for_its_user_only(tmp_path: Path) -> None:
    lines: list[str] = []
    path = tmp_path / "runs" / ".token"
    token = read_token(path, make=True, deadline_s=0, say=lines.append)
    assert len(token) == 64 and stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_token(path, make=True, deadline_s=0, say=lines.append) == token
    assert len(lines) == 1 and list(path.parent.iterdir()) == [path]


def test_a_worker_waits_for_the_token(tmp_path: Path) -> None:
    path, lines = tmp_path / ".token", list[str]()

    def bring() -> None:
        time.sleep(0.3)
        read_token(path, make=True, deadline_s=0, say=lambda line: None)

    bringer = threading.Thread(target=bring)
    bringer.start()
    assert len(read_token(path, make=False, deadline_s=20, say=lines.append)) == 64
    bringer.join()
    assert lines == [f"waiting for the head's token at {path}; copy it here (mode 600), or give --token-file"]


def test_tokens_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / ".token"
    with pytest.raises(LaunchError, match=r"no token at .*; copy the head's there"):
        read_token(path, make=False, deadline_s=0, say=lambda line: None)
    path.write_text("0123456789abcdef")
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="can be read by others on this machine; type: chmod 600"):
        read_token(path, make=False, deadline_s=0, say=lambda line: None)
    path.chmod(0o600)
    path.write_text("short")
    with pytest.raises(ConfigError, match="holds no token"):
        read_token(path, make=True, deadline_s=0, say=lambda line: None)


def made(path: Path) -> Path:
    read(path, make=True)
    return path


def test_a_link_to_shared_storage_is_followed(tmp_path: Path) -> None:
    shared = made(tmp_path / "shared" / ".token")
    (tmp_path / "link").symlink_to(shared)
    assert read(tmp_path / "link") == shared.read_bytes()
    shared.chmod(0o640)
    with pytest.raises(ConfigError, match="can be read by others"):
        read(tmp_path / "link")


def test_another_user_s_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = made(tmp_path / ".token")
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
    with pytest.raises(
        ConfigError, match=rf"belongs to another user \(uid {path.stat().st_uid}\); give a --token-file"
    ):
        read(path)


def test_root_s_own_on_storage_that_gives_its_files_to_nobody_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = made(tmp_path / ".token")
    owner = path.stat().st_uid
    monkeypatch.setattr(cluster_token, "_seen_as", lambda directory: owner)
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    assert read(path) == path.read_bytes()


def test_what_is_no_file_is_said_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_text("x")
    for path, problem in (
        (tmp_path, "is no file"), (tmp_path / "pipe", "is no file"), (tmp_path / "file" / ".token", "cannot be read"),
        (tmp_path / ("n" * 300), "cannot be read"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=problem) as caught:
            read(path, make=True)
        assert "\n" not in str(caught.value)


def test_a_long_file_is_no_token(tmp_path: Path) -> None:
    path = made(tmp_path / ".token")
    path.write_bytes(b"x" * 10**6)
    with pytest.raises(ConfigError, match="holds no token"):
        read(path)


AS_ANOTHER = """
import os, sys
from pathlib import Path
from recipe.launch.cluster_token import read_token
from recipe.runfile.errors import ConfigError
os.setgroups([]); os.setgid(65534); os.setuid(65534)
for make in (True, False):
    try:
        read_token(Path(sys.argv[1]), make=make, deadline_s=0, say=print)
    except ConfigError as error:
        print(error)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("case", ["the file", "the directory"])
def test_a_place_of_another_user_is_one_line(case: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        path = made(Path(directory) / "runs" / ".token")
        path.parent.chmod(0o700 if case == "the directory" else 0o755)
        done = subprocess.run(
            [sys.executable, "-c", AS_ANOTHER, str(path)], capture_output=True, text=True, timeout=60, check=False,
            env={**os.environ, "PYTHONPATH": str(REPO), "PYTHONDONTWRITEBYTECODE": "1"},
        )  # fmt: skip
    line = f"{path} cannot be read (Permission denied); give a --token-file of your own\n"
    assert (done.stdout, done.stderr) == (line * 2, "")


def test_a_directory_that_takes_no_file_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.mkstemp", full)
    with pytest.raises(ConfigError, match=r"cannot be made \(No space left on device\); give another --token-file"):
        read(tmp_path / ".token", make=True)
