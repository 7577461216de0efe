# SPDX-License-Identifier: Apache-2.0
"""What a download leaves that is not finished: each of its marks by itself; and what is only like one."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recipe.weights.errors import WeightsError
from recipe.weights.wholeness import (
    check_head,
    check_numbers,
    check_text,
    check_unfinished,
    first_hole,
    read_json,
)

BLOCK = 4096


def sparse(file: Path, written: list[tuple[int, int]], size: int) -> None:
    with file.open("wb") as stream:
        stream.truncate(size)
        for begin, end in written:
            stream.seek(begin)
            stream.write(b"\1" * (end - begin))


@pytest.mark.parametrize(
    ("written", "begin", "hole"),
    [
        ([(0, 8 * BLOCK)], 0, None),
        ([(0, 3 * BLOCK)], 0, 3 * BLOCK),
        ([(0, 3 * BLOCK), (4 * BLOCK, 8 * BLOCK)], 100, 3 * BLOCK),
        ([(0, 3 * BLOCK), (4 * BLOCK, 8 * BLOCK)], 4 * BLOCK + 1, None),
        ([], 0, 0),
        ([], 5, 5),
        # Zeros that were written are no hole.
        ([(0, 2 * BLOCK), (2 * BLOCK, 8 * BLOCK)], 0, None),
    ],
)
def test_holes(written: list[tuple[int, int]], begin: int, hole: int | None, tmp_path: Path) -> None:
    sparse(tmp_path / "f", written, 8 * BLOCK)
    assert first_hole(tmp_path / "f", begin, 8 * BLOCK) == hole
    assert first_hole(tmp_path / "f", begin, begin) is None


def test_written_zeros_are_no_hole(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(bytes(5 * BLOCK + 1))
    assert first_hole(tmp_path / "f", 0, 5 * BLOCK + 1) is None


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_that_cannot_tell(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sparse(tmp_path / "f", [], 8 * BLOCK)

    def refuse(*_: Any) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "lseek", refuse)
    assert first_hole(tmp_path / "f", 0, 8 * BLOCK) is None


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="cannot be read"):
        first_hole(tmp_path / "gone", 0, 1)


@pytest.mark.parametrize(
    ("head", "what"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "Git LFS pointer"),
        (b"\xef\xbb\xbf  VERSION https://git-lfs.github.com/spec/v1", "Git LFS pointer"),
        (b"# xet version 0\n", "Xet pointer"),
        (b"\r\n<!DOCTYPE html>", "web page"),
        (b"<HTML>", "web page"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied", "answer of a web server"),
    ],
)
def test_pointers_and_web_pages(head: bytes, what: str) -> None:
    with pytest.raises(WeightsError, match=what):
        check_head(Path("f"), head)


@given(st.binary(max_size=80))
def test_a_shard_is_no_pointer(content: bytes) -> None:
    """The length of the header, eight bytes, and its brace."""
    check_head(Path("f"), (len(content) + 2).to_bytes(8, "little") + b'{"' + content)


def names(first: int, last: int, count: int, digits: int = 5) -> list[str]:
    return [f"model-{n:0{digits}d}-of-{count:06d}.safetensors" for n in range(first, last + 1)]


@pytest.mark.parametrize(
    "listed",
    [
        names(1, 163, 163),
        names(0, 4, 5),
        ["model.safetensors"],
        ["consolidated.safetensors", *names(1, 2, 2)],
        ["layer-1-of-the-model.safetensors"],
        names(1, 1, 1),
        [],
    ],
)
def test_numbered_files_that_are_all_there(listed: list[str]) -> None:
    check_numbers(Path("d"), listed)


@pytest.mark.parametrize(
    ("listed", "missing"),
    [
        (names(2, 5, 5), "number 1 is missing"),
        (names(1, 4, 5), "number 5 is missing"),
        (names(1, 2, 5) + names(4, 5, 5), "number 3 is missing"),
        (names(0, 3, 5), "number 4 is missing"),
        (names(1, 3, 3) + names(2, 2, 4), "number 1 is missing"),
        (["model-00001-of-999999999.safetensors"], "number 2 is missing"),
        (names(1, 6, 5), "from 1 to 6, beyond 5"),
        (names(7, 7, 1), "from 1 to 7, beyond 1"),
    ],
)
def test_numbered_files_of_which_one_is_missing(listed: list[str], missing: str) -> None:
    with pytest.raises(WeightsError, match=missing):
        check_numbers(Path("d"), listed)


def used(name: str) -> bool:
    return name == "a.safetensors"


@pytest.mark.parametrize("note", [f"a.safetensors{end}" for end in (".aria2", ".incomplete", ".part", ".crdownload")])
def test_notes_of_downloaders(note: str, tmp_path: Path) -> None:
    check_unfinished(tmp_path, used)
    (tmp_path / note).touch()
    with pytest.raises(WeightsError, match=f"{note}: a download is not finished"):
        check_unfinished(tmp_path, used)


def test_notes_about_other_files_and_finished_ones(tmp_path: Path) -> None:
    (tmp_path / "b.gguf.part").touch()
    hub = tmp_path / ".cache" / "huggingface" / "download"
    hub.mkdir(parents=True)
    (hub / "a.safetensors.metadata").touch()
    (hub / "a.safetensors.lock").touch()
    check_unfinished(tmp_path, used)
    (hub / "kx_=.c0ffee.incomplete").touch()
    with pytest.raises(WeightsError, match="not finished"):
        check_unfinished(tmp_path, used)


@pytest.mark.parametrize("content", [b"", b" \n", b'{"a": 1', b'"a"}', b'{"a": "\0"}', b"\0" * 40])
def test_small_files_that_did_not_come_whole(content: bytes) -> None:
    with pytest.raises(WeightsError, match=r"t\.json: "):
        check_text(Path("t.json"), content)


@pytest.mark.parametrize(
    ("name", "content"),
    [("t.json", b" {} \n"), ("t.json", b"[1]"), ("merges.txt", b""), ("vocab.model", b"\0\1"), ("LICENSE", b"(c)")],
)
def test_small_files_that_are_in_order(name: str, content: bytes) -> None:
    check_text(Path(name), content)


@pytest.mark.parametrize("content", [b"{", b"[1]", b"[" * 200_000, b"\xff", b'{"a": ' + b"9" * 5000 + b"}", b"", b"\0"])
def test_json_that_is_none_is_one_error(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "f.json").write_bytes(content)
    with pytest.raises(WeightsError, match=r"f\.json: ") as caught:
        read_json(tmp_path / "f.json", "config")
    assert len(str(caught.value)) < 300
