# SPDX-License-Identifier: Apache-2.0
"""A file is replaced whole or not at all, with space that was taken before."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from recipe.files import release, reserve, write_atomically


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    for content in ("first, and longer", "then"):
        write_atomically(path, content)
        assert path.read_text() == content
    write_atomically(path, b"\xff")
    assert path.read_bytes() == b"\xff" and [one.name for one in tmp_path.iterdir()] == ["x.json"]


def test_what_cannot_be_written_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.json"
    write_atomically(path, "before")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: .*x\.json"):
        write_atomically(path, "after")
    assert path.read_text() == "before"


def test_reserved_space_is_used_and_given_back(tmp_path: Path) -> None:
    path, other = tmp_path / "x.json", tmp_path / "y.json"
    reserve(path, 4096)
    reserve(other, 4096)
    (blocks,) = {one.stat().st_blocks for one in tmp_path.iterdir()}
    assert blocks * 512 >= 4096 and not path.exists()
    inode = (tmp_path / ".x.json.unfinished").stat().st_ino
    write_atomically(path, "short")
    assert path.read_text() == "short" and path.stat().st_ino == inode, "no new file was made"
    release(other)
    release(other)
    assert [one.name for one in tmp_path.iterdir()] == ["x.json"]


def test_a_link_in_the_way_is_not_written_through(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("somebody's")
    (tmp_path / ".x.json.unfinished").symlink_to(target)
    with pytest.raises(OSError):
        write_atomically(tmp_path / "x.json", "ours")
    assert target.read_text() == "somebody's"
