# SPDX-License-Identifier: Apache-2.0
"""The sink: whatever is written into it, in whatever pieces, is in the file, and its checksum is right."""

from __future__ import annotations

import errno
import os
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recipe.weights.errors import InterruptedJobError
from recipe.weights.output import CompareDestination, FileDestination, Sink

SMALL = 8192
PIECES = st.lists(st.tuples(st.sampled_from(["write", "fill"]), st.integers(0, 3 * SMALL)), max_size=12)


def emit(sink: Sink, pieces: list[tuple[str, int]]) -> bytes:
    """Put pieces of counting bytes into the sink; returns what the file is."""
    expected = bytearray()
    for number, (how, size) in enumerate(pieces):
        data = bytes((number + i) % 251 for i in range(size))
        if how == "write":
            crc = sink.write(data)
        else:

            def read(at: int, into: memoryview, data: bytes = data) -> None:
                into[:] = data[at : at + len(into)]

            crc = sink.fill(size, read)
        assert crc == zlib.crc32(data)
        expected += data
        assert sink.position == len(expected)
    return bytes(expected)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(files=st.lists(PIECES, min_size=1, max_size=3), direct=st.booleans())
def test_files_are_what_was_written(files: list[Any], direct: bool, tmp_path: Path) -> None:
    sink = Sink(SMALL)
    for number, pieces in enumerate(files):
        path = tmp_path / str(number)
        target = FileDestination(path)
        if not direct:
            target._buffered()
        sink.begin(target)
        expected = emit(sink, pieces)
        assert sink.finish() == (len(expected), zlib.crc32(expected))
        target.close()
        assert path.read_bytes() == expected
        comparison = CompareDestination(path)
        sink.begin(comparison)
        emit(sink, pieces)
        sink.finish()
        assert comparison.differs_at() is None
        comparison.close()
    sink.close()


@pytest.mark.parametrize("change", ["flip", "cut", "longer", "empty"])
def test_a_comparison_finds_the_first_byte_that_differs(change: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    pieces, sink = [("write", 3 * SMALL), ("fill", 100)], Sink(SMALL)
    target = FileDestination(path)
    sink.begin(target)
    good = bytearray(emit(sink, pieces))
    sink.finish()
    at = {"flip": 20001, "cut": len(good) - 3, "longer": len(good), "empty": 0}[change]
    if change == "flip":
        good[at] ^= 1
        good[at + 4000] ^= 1
    path.write_bytes({"flip": good, "cut": good[:at], "longer": good + b"x", "empty": b""}[change])
    comparison = CompareDestination(path)
    sink.begin(comparison)
    emit(sink, pieces)
    sink.finish()
    assert comparison.differs_at() == at


def test_pieces_asked_for_are_even_where_all_is_even(tmp_path: Path) -> None:
    sink, sizes = Sink(SMALL), []
    target = FileDestination(tmp_path / "file")
    sink.begin(target)
    sink.write(bytes(4094))

    def read(at: int, into: memoryview) -> None:
        sizes.append(len(into))
        into[:] = bytes(len(into))

    sink.fill(2 * 2**20 + 2, read)
    sink.finish()
    assert sum(sizes) == 2 * 2**20 + 2 and all(size % 2 == 0 for size in sizes)


@pytest.mark.parametrize("call", ["pwrite", "fsync"])
def test_a_full_disk_is_one_clear_error(call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    sink, target = Sink(SMALL), FileDestination(tmp_path / "file")
    monkeypatch.setattr(os, call, full)
    sink.begin(target)
    with pytest.raises(InterruptedJobError, match=r"file cannot be written \(No space left on device\)"):
        sink.write(bytes(5 * SMALL))
        sink.finish()
    sink.abandon()
    target.close()
