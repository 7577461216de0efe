# SPDX-License-Identifier: Apache-2.0
"""However a tensor was cut up and laid out in memory when it was saved, its rows come out as they were."""

from __future__ import annotations

import io
import itertools
import tempfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recipe.weights import gather
from recipe.weights.dcp_metadata import Blob, Chunk, StoredTensor
from recipe.weights.dcp_reader import read_storage
from recipe.weights.errors import WeightsError
from recipe.weights.gather import Box, ChunkIndex, Gather, Section
from recipe.weights.source import Reader


class Collected:
    """A sink that keeps what it is given."""

    def __init__(self) -> None:
        self.content = bytearray()

    def write(self, data: Any) -> int:
        self.content += bytes(data)
        return 0

    def fill(self, nbytes: int, read: Any) -> int:
        begin = len(self.content)
        for at in range(0, nbytes, 14):
            into = bytearray(min(14, nbytes - at))
            read(at, memoryview(into))
            self.content += into
        return zlib.crc32(self.content[begin:])


@st.composite
def cuts(draw: st.DrawFn, size: int) -> list[tuple[int, int]]:
    """(begin, length) of the runs an axis is cut into."""
    inner = draw(st.sets(st.integers(1, size - 1), max_size=3)) if size > 1 else set()
    ends = [0, *sorted(inner), size]
    return [(a, b - a) for a, b in itertools.pairwise(ends)]


@st.composite
def saved_tensors(draw: st.DrawFn) -> tuple[torch.Tensor, list[tuple[Any, torch.Tensor]]]:
    """A tensor, and pieces of it as a rank may hold them: transposed in memory, or within a larger storage."""
    shape = draw(st.lists(st.integers(1, 6), min_size=2, max_size=3))
    tensor = torch.arange(1, 1 + int(np.prod(shape)), dtype=torch.float32).reshape(shape).to(torch.bfloat16)
    pieces = []
    for place in itertools.product(*(draw(cuts(size)) for size in shape)):
        piece = tensor[tuple(slice(at, at + size) for at, size in place)].clone()
        kind = draw(st.sampled_from(["plain", "transposed", "inside"]))
        if kind == "transposed":
            piece = piece.transpose(-1, -2).contiguous().transpose(-1, -2)
        elif kind == "inside":
            larger = torch.zeros(piece.numel() + 7, dtype=piece.dtype)
            larger[3 : 3 + piece.numel()] = piece.flatten()
            piece = larger[3 : 3 + piece.numel()].view(piece.shape)
        pieces.append((place, piece))
    return tensor, pieces


def write(directory: Path, pieces: list[tuple[Any, torch.Tensor]], shape: tuple[int, ...]) -> ChunkIndex:
    """The pieces one after the other in a file, as a checkpoint has them."""
    stored = StoredTensor("BF16", shape)
    content = b""
    for place, piece in pieces:
        stream = io.BytesIO()
        torch.save(piece, stream)
        blob = Blob("f", len(content), len(stream.getvalue()))
        stored.chunks.append(Chunk(tuple(at for at, _ in place), tuple(size for _, size in place), blob))
        content += stream.getvalue()
    (directory / "f").write_bytes(content)
    return ChunkIndex("w", stored)


@settings(max_examples=80, deadline=None)
@given(saved_tensors(), st.data())
def test_rows_of_any_box(saved: tuple[torch.Tensor, list[tuple[Any, torch.Tensor]]], data: st.DataObject) -> None:
    tensor, pieces = saved
    leading = tensor.dim() - 2
    at = [data.draw(st.integers(0, size - 1)) for size in tensor.shape[:leading]]
    first = data.draw(st.integers(0, tensor.shape[leading] - 1))
    rows = data.draw(st.integers(1, tensor.shape[leading] - first))
    box = Box((*at, first, 0), (*[1] * leading, rows, tensor.shape[-1]))
    sink = Collected()
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(gather, "_BATCH_BYTES", data.draw(st.sampled_from([1, 20, 10**6])))
        patch.setattr(gather, "_WHOLE_BYTES", data.draw(st.sampled_from([1, 10**6])))
        index = write(Path(name), pieces, tuple(tensor.shape))
        part = Gather("w", "BF16", (Section("w", box, leading, index.covering(box)),), Path(name))
        part.emit(sink, Reader())
    expected = tensor[(*at, slice(first, first + rows))].contiguous()
    assert part.nbytes == len(sink.content) == 2 * expected.numel()
    assert torch.equal(torch.frombuffer(sink.content, dtype=torch.bfloat16).view(expected.shape), expected)


@settings(max_examples=60, deadline=None)
@given(saved_tensors(), st.data())
def test_a_flipped_bit_is_noticed_whatever_is_read_of_its_piece(
    saved: tuple[torch.Tensor, list[tuple[Any, torch.Tensor]]], data: st.DataObject
) -> None:
    tensor, pieces = saved
    leading = tensor.dim() - 2
    at = [data.draw(st.integers(0, size - 1)) for size in tensor.shape[:leading]]
    first = data.draw(st.integers(0, tensor.shape[leading] - 1))
    box = Box((*at, first, 0), (*[1] * leading, 1, tensor.shape[-1]))
    with tempfile.TemporaryDirectory() as name:
        index = write(Path(name), pieces, tuple(tensor.shape))
        section = Section("w", box, leading, index.covering(box))
        storage = read_storage(Path(name), "w", data.draw(st.sampled_from(section.chunks)), "BF16", Reader())
        place = storage.entry.begin + data.draw(st.integers(0, storage.entry.nbytes - 1))
        content = bytearray((Path(name) / "f").read_bytes())
        content[place] ^= 1 << data.draw(st.integers(0, 7))
        (Path(name) / "f").write_bytes(content)
        with pytest.raises(WeightsError, match=r"f: w at byte \d+: its bytes have CRC-32"):
            Gather("w", "BF16", (section,), Path(name)).emit(Collected(), Reader())


@settings(max_examples=40, deadline=None)
@given(saved_tensors(), st.data())
def test_a_piece_that_is_not_there_is_noticed(
    saved: tuple[torch.Tensor, list[tuple[Any, torch.Tensor]]], data: st.DataObject
) -> None:
    tensor, pieces = saved
    pieces.remove(data.draw(st.sampled_from(pieces)))
    with tempfile.TemporaryDirectory() as name:
        index = write(Path(name), pieces, tuple(tensor.shape))
    with pytest.raises(WeightsError, match=r"w at \[0, 0.*is the checkpoint complete"):
        index.covering(Box((0,) * tensor.dim(), tuple(tensor.shape)))
