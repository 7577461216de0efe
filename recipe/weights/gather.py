# SPDX-License-Identifier: Apache-2.0
"""A Hugging Face tensor put together from the pieces of Megatron tensors, a few rows at a time."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from recipe.weights import zeros
from recipe.weights.dcp_metadata import Chunk, StoredTensor
from recipe.weights.dcp_reader import Storage, check_crc, is_row_major, read_storage, require_crc
from recipe.weights.errors import WeightsError
from recipe.weights.hf_checkpoint import ITEM_BYTES, TensorEntry
from recipe.weights.output import Sink
from recipe.weights.source import Reader

_BATCH_BYTES = 8 * 2**20
# All of a transposed piece is read for any one of its rows, so up to this size all its rows are taken at once.
_WHOLE_BYTES = 64 * 2**20
_ELEMENT = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}


@dataclass(frozen=True, slots=True)
class Box:
    """The elements of an array from `offsets` on, `sizes` of them along each axis."""

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]

    def common(self, other: Box) -> Box | None:
        """The box of the elements that are in both; None where none are."""
        low = tuple(max(a, b) for a, b in zip(self.offsets, other.offsets, strict=True))
        ends = zip(self.offsets, self.sizes, other.offsets, other.sizes, strict=True)
        sizes = tuple(min(a + n, b + m) - at for at, (a, n, b, m) in zip(low, ends, strict=True))
        return Box(low, sizes) if min(sizes) > 0 else None

    def within(self, other: Box) -> tuple[slice, ...]:
        """The slices of this box in an array that holds the elements of `other`."""
        return tuple(slice(a - b, a - b + n) for a, b, n in zip(self.offsets, other.offsets, self.sizes, strict=True))


def _box(chunk: Chunk) -> Box:
    return Box(chunk.offsets, chunk.shape)


class ChunkIndex:
    """The chunks of a tensor, found by their position."""

    def __init__(self, name: str, tensor: StoredTensor) -> None:
        self.name, self.tensor = name, tensor
        self._chunks = sorted(tensor.chunks, key=lambda chunk: chunk.offsets)
        self._starts = [chunk.offsets[0] for chunk in self._chunks]
        self._longest = max((chunk.shape[0] for chunk in self._chunks), default=0)

    def covering(self, box: Box) -> tuple[Chunk, ...]:
        """The chunks that `box` consists of. Raises WeightsError when they leave a part of it out, or give it twice."""
        first, end = box.offsets[0], box.offsets[0] + box.sizes[0]
        begin = bisect_left(self._starts, first - self._longest + 1)
        near = self._chunks[begin : bisect_left(self._starts, end)]
        parts = [(chunk, common) for chunk in near if (common := box.common(_box(chunk)))]
        covered = sum(math.prod(common.sizes) for _, common in parts)
        if covered != math.prod(box.sizes):
            raise WeightsError(
                f".metadata: {self.name} at {list(box.offsets)}: its pieces give {covered} of "
                f"{math.prod(box.sizes)} elements; is the checkpoint complete?"
            )
        return tuple(chunk for chunk, _ in parts)


@dataclass(frozen=True, slots=True)
class Section:
    """Rows of the Hugging Face tensor: `box` of the Megatron tensor `name`, in `chunks`; the first `leading` axes of
    the box have size 1 and are the Megatron tensor's own."""

    name: str
    box: Box
    leading: int
    chunks: tuple[Chunk, ...]

    @property
    def rows(self) -> int:
        return self.box.sizes[self.leading]

    def batch(self, first: int, rows: int) -> Box:
        """The box of some of its rows."""
        offsets, sizes = list(self.box.offsets), list(self.box.sizes)
        offsets[self.leading] += first
        sizes[self.leading] = rows
        return Box(tuple(offsets), tuple(sizes))


@dataclass(frozen=True, slots=True)
class Gather:
    """The part of a safetensors file that is one tensor: its sections one after the other."""

    label: str
    dtype: str
    sections: tuple[Section, ...]
    directory: Path

    @property
    def nbytes(self) -> int:
        return sum(math.prod(section.box.sizes) for section in self.sections) * ITEM_BYTES[self.dtype]

    @property
    def reads(self) -> Sequence[TensorEntry]:
        """Its archives."""
        return [
            TensorEntry(
                f"{self.label}@{section.name}{chunk.offsets}",
                self.dtype,
                chunk.shape,
                self.directory / chunk.blob.file,
                chunk.blob.offset,
                chunk.blob.nbytes,
            )
            for section in self.sections
            for chunk in section.chunks
        ]

    def emit(self, sink: Sink, reader: Reader) -> None:
        seen = _Seen()
        for section in self.sections:
            storages = [
                (chunk, read_storage(self.directory, section.name, chunk, self.dtype, reader))
                for chunk in section.chunks
            ]
            runs = self._runs(section, storages)
            if runs is None:
                for _, storage in storages:
                    check_crc(storage, reader)
                for rows in self._batches(section, storages, reader):
                    seen.note(memoryview(rows).cast("B"))
                    sink.write(memoryview(rows).cast("B"))
            else:
                for run in runs:
                    run.emit(sink, reader, seen)
        matrix = any(len(section.box.sizes) - section.leading > 1 for section in self.sections)
        if matrix and self.nbytes >= zeros.LEAST_BYTES and not seen.other_than_zero:
            raise zeros.refusal(f"{self.reads[0].file}: {self.label}")

    def _runs(self, section: Section, storages: list[tuple[Chunk, Storage]]) -> list[_ByteRange] | None:
        """The bytes of the section where they stand, or None when rows are cut or not in the order of the axes."""
        item = ITEM_BYTES[self.dtype]
        runs = []
        for chunk, storage in storages:
            common = section.box.common(_box(chunk))
            assert common is not None, "a chunk of the section's"
            if common.sizes[section.leading + 1 :] != section.box.sizes[section.leading + 1 :]:
                return None
            if not is_row_major(common.sizes, storage.strides):
                return None
            begin = _first(storage, common, _box(chunk)) * item
            runs.append((common.offsets, _ByteRange(storage, begin, math.prod(common.sizes) * item)))
        return [run for _, run in sorted(runs, key=lambda pair: pair[0])]

    def _batches(
        self, section: Section, storages: list[tuple[Chunk, Storage]], reader: Reader
    ) -> Iterator[NDArray[Any]]:
        """Batches of rows in order, each in the same buffer, which the next batch overwrites."""
        item = ITEM_BYTES[self.dtype]
        nbytes = math.prod(section.box.sizes) * item
        plain = all(is_row_major(storage.shape, storage.strides) for _, storage in storages)
        step = section.rows
        if plain or nbytes > _WHOLE_BYTES:
            step = max(1, min(step, _BATCH_BYTES * section.rows // nbytes))
        buffer = np.empty(section.batch(0, step).sizes, _ELEMENT[item])
        for first in range(0, section.rows, step):
            box = section.batch(first, min(step, section.rows - first))
            out = buffer[(slice(None),) * section.leading + (slice(box.sizes[section.leading]),)]
            for chunk, storage in storages:
                if common := box.common(_box(chunk)):
                    _read_box(storage, common, _box(chunk), out[common.within(box)], reader)
            yield out


class _Seen:
    """Whether any byte of a tensor was other than zero."""

    def __init__(self) -> None:
        self.other_than_zero = False

    def note(self, piece: memoryview) -> None:
        if not self.other_than_zero:
            self.other_than_zero = not zeros.all_zero(piece)


@dataclass(frozen=True, slots=True)
class _ByteRange:
    """Bytes [begin, begin + nbytes) of a storage."""

    storage: Storage
    begin: int
    nbytes: int

    def emit(self, sink: Sink, reader: Reader, seen: _Seen) -> None:
        """Write them; the checksum that this takes is that of the archive where they are all of it."""
        whole = self.nbytes == self.storage.entry.nbytes
        if not whole:
            check_crc(self.storage, reader)

        def read(at: int, into: memoryview) -> None:
            reader.read_raw(self.storage.entry, self.begin + at, into)
            seen.note(into)

        crc = sink.fill(self.nbytes, read)
        if whole:
            require_crc(self.storage, crc)


def _first(storage: Storage, wanted: Box, chunk: Box) -> int:
    """The number, in the storage of the chunk, of the first element of `wanted`."""
    low = (a - b for a, b in zip(wanted.offsets, chunk.offsets, strict=True))
    return storage.offset + sum(at * stride for at, stride in zip(low, storage.strides, strict=True))


def _read_box(storage: Storage, wanted: Box, chunk: Box, into: NDArray[Any], reader: Reader) -> None:
    """Fill `into` with the elements of `wanted`, which lies in the chunk."""
    begin = _first(storage, wanted, chunk) * into.itemsize
    raw = np.empty(1 + sum((n - 1) * s for n, s in zip(wanted.sizes, storage.strides, strict=True)), into.dtype)
    reader.read_raw(storage.entry, begin, memoryview(raw).cast("B"))
    strides = [stride * into.itemsize for stride in storage.strides]
    into[...] = as_strided(raw, wanted.sizes, strides, writeable=False)
