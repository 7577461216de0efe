# SPDX-License-Identifier: Apache-2.0
"""A Hugging Face tensor put together from the pieces of Megatron tensors, a few rows at a time."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from recipe.weights.dcp_metadata import Chunk, StoredTensor
from recipe.weights.dcp_reader import Storage, is_row_major, read_storage
from recipe.weights.errors import WeightsError
from recipe.weights.hf_checkpoint import ITEM_BYTES
from recipe.weights.output import Sink
from recipe.weights.source import Reader

_BATCH_BYTES = 8 * 2**20
# Transposed pieces are read as a whole for any row of theirs: up to this size, all rows are taken at once.
_WHOLE_BYTES = 64 * 2**20
_ELEMENT = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}


@dataclass(frozen=True, slots=True)
class Box:
    """The elements of an array from `offsets` on, `sizes` of them along each axis."""

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]

    def common(self, other: Box) -> Box | None:
        """What lies in both."""
        low = tuple(max(a, b) for a, b in zip(self.offsets, other.offsets, strict=True))
        ends = zip(self.offsets, self.sizes, other.offsets, other.sizes, strict=True)
        sizes = tuple(min(a + n, b + m) - at for at, (a, n, b, m) in zip(low, ends, strict=True))
        return Box(low, sizes) if min(sizes) > 0 else None

    def within(self, other: Box) -> tuple[slice, ...]:
        """Where it is in an array that holds `other`."""
        return tuple(slice(a - b, a - b + n) for a, b, n in zip(self.offsets, other.offsets, self.sizes, strict=True))


def _box(chunk: Chunk) -> Box:
    return Box(chunk.offsets, chunk.shape)


class ChunkIndex:
    """The chunks of a tensor, found by where they are."""

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

    def emit(self, sink: Sink, reader: Reader) -> None:
        for section in self.sections:
            for rows in self._batches(section, reader):
                sink.write(memoryview(rows).cast("B"))

    def _batches(self, section: Section, reader: Reader) -> Iterator[NDArray[Any]]:
        storages = [
            (chunk, read_storage(self.directory, section.name, chunk, self.dtype, reader)) for chunk in section.chunks
        ]
        item = ITEM_BYTES[self.dtype]
        nbytes = math.prod(section.box.sizes) * item
        plain = all(is_row_major(storage.shape, storage.strides) for _, storage in storages)
        step = section.rows
        if plain or nbytes > _WHOLE_BYTES:
            step = max(1, min(step, _BATCH_BYTES * section.rows // nbytes))
        for first in range(0, section.rows, step):
            box = section.batch(first, min(step, section.rows - first))
            out = np.empty(box.sizes, _ELEMENT[item])
            for chunk, storage in storages:
                if common := box.common(_box(chunk)):
                    _read_box(storage, common, _box(chunk), out[common.within(box)], reader)
            yield out


def _read_box(storage: Storage, wanted: Box, chunk: Box, into: NDArray[Any], reader: Reader) -> None:
    """Fill `into` with the elements of `wanted`, which lies in the chunk."""
    item = into.itemsize
    low = [a - b for a, b in zip(wanted.offsets, chunk.offsets, strict=True)]
    first = storage.offset + sum(at * stride for at, stride in zip(low, storage.strides, strict=True))
    extent = 1 + sum((n - 1) * stride for n, stride in zip(wanted.sizes, storage.strides, strict=True))
    if into.flags.c_contiguous and is_row_major(wanted.sizes, storage.strides):
        reader.read_raw(storage.entry, first * item, memoryview(into).cast("B"))
        return
    raw = np.empty(extent, into.dtype)
    reader.read_raw(storage.entry, first * item, memoryview(raw).cast("B"))
    into[...] = as_strided(raw, wanted.sizes, [stride * item for stride in storage.strides], writeable=False)
