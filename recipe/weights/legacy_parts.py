# SPDX-License-Identifier: Apache-2.0
"""The bytes of a rank's file: an archive of its tensors, made stack by stack from the Hugging Face ones.

Memory: the largest matrix that is transposed (gate and up of one expert) and a few MB, for each worker.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

from recipe.weights import torch_pickle
from recipe.weights.errors import WeightsError
from recipe.weights.hf_checkpoint import ITEM_BYTES, TensorEntry
from recipe.weights.job import Literal, Part
from recipe.weights.legacy_layout import ITERATION, Block, BlockStack, LegacyTensor, Rank, rank_tensors
from recipe.weights.legacy_options import LegacyOptions
from recipe.weights.output import Sink
from recipe.weights.source import Reader, Source
from recipe.weights.torch_zip import Archive
from recipe.weights.transpose import columns_as_rows

# Bytes of the rows read at a time where only some of their columns are wanted, and of those transposed at a time.
_BATCH_BYTES = 2**20
_ELEMENT = {2: np.uint16, 4: np.uint32}


@dataclass(frozen=True)
class RankParts(Sequence[Part]):
    """The parts of one rank's file, made anew at each iteration: those of all ranks together would be half a million
    objects."""

    rank: Rank
    options: LegacyOptions
    config: dict[str, Any]
    sources: Mapping[str, Source]

    def __iter__(self) -> Iterator[Part]:
        tensors = rank_tensors(self.rank, self.options, self.config)
        archive = _archive(tensors, self.sources)
        yield Literal(archive.head)
        sums = [0] * len(tensors)
        for key, tensor in enumerate(tensors):
            yield StoragePart(tensor, key, sums, self.sources)
            yield AfterStorage(key, archive, sums)

    @overload
    def __getitem__(self, index: int) -> Part: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Part]: ...
    def __getitem__(self, index: int | slice) -> Part | Sequence[Part]:
        return list(self)[index]

    def __len__(self) -> int:
        return len(rank_tensors(self.rank, self.options, self.config)) * 2 + 1


def _dtype_of(tensor: LegacyTensor, sources: Mapping[str, Source]) -> str:
    """The dtype of a legacy tensor: that of all its sources; raises WeightsError where they differ."""
    first = sources[tensor.stacks[0].blocks[0].tensor]
    for stack in tensor.stacks:
        for block in stack.blocks:
            other = sources[block.tensor]
            if other.dtype != first.dtype:
                raise WeightsError(
                    f"{other.where} is {other.dtype}, {first.where} is {first.dtype}; {tensor.name} is both"
                )
    return first.dtype


def _archive(tensors: list[LegacyTensor], sources: Mapping[str, Source]) -> Archive:
    kinds = [_dtype_of(tensor, sources) for tensor in tensors]
    model = {
        tensor.name: torch_pickle.tensor(kind, tensor.shape, key)
        for key, (tensor, kind) in enumerate(zip(tensors, kinds, strict=True))
    }
    value = {
        "model": torch_pickle.mapping(model),
        "checkpoint_version": torch_pickle.real(3.0),
        "iteration": torch_pickle.integer(ITERATION),
    }
    sizes = [math.prod(tensor.shape) * ITEM_BYTES[kind] for tensor, kind in zip(tensors, kinds, strict=True)]
    return Archive(torch_pickle.document(torch_pickle.mapping(value)), sizes)


@dataclass(frozen=True, slots=True)
class AfterStorage:
    """What the archive has after storage `key`; `sums` holds the checksums of the storages before it."""

    key: int
    archive: Archive
    sums: list[int]

    @property
    def label(self) -> str:
        return "archive"

    @property
    def reads(self) -> Sequence[TensorEntry]:
        return ()

    @property
    def nbytes(self) -> int:
        return len(self._bytes())

    def emit(self, sink: Sink, reader: Reader) -> None:
        sink.write(self._bytes())

    def _bytes(self) -> bytes:
        if self.key + 1 < len(self.sums):
            return self.archive.between(self.key, self.sums[self.key])
        return self.archive.tail(self.sums)


@dataclass(frozen=True, slots=True)
class StoragePart:
    """The elements of one tensor, storage `key` of its archive; leaves their checksum in `sums`."""

    tensor: LegacyTensor
    key: int
    sums: list[int]
    sources: Mapping[str, Source]

    @property
    def label(self) -> str:
        return self.tensor.stacks[0].blocks[0].tensor

    @property
    def reads(self) -> Sequence[TensorEntry]:
        blocks = (block for stack in self.tensor.stacks for block in stack.blocks)
        return [entry for block in blocks for entry in self.sources[block.tensor].entries]

    @property
    def _item_bytes(self) -> int:
        return ITEM_BYTES[self.sources[self.label].dtype]

    @property
    def nbytes(self) -> int:
        return math.prod(self.tensor.shape) * self._item_bytes

    def emit(self, sink: Sink, reader: Reader) -> None:
        self.sums[self.key] = 0
        for stack in self.tensor.stacks:
            if stack.transposed:
                self._transposed(stack, sink, reader)
            else:
                for block in stack.blocks:
                    self._straight(block, sink, reader)

    def _count(self, crc: int, nbytes: int) -> None:
        self.sums[self.key] = isal_zlib.crc32_combine(self.sums[self.key], crc, nbytes)

    def _write(self, data: NDArray[Any], sink: Sink) -> None:
        self._count(sink.write(memoryview(data).cast("B")), data.nbytes)

    def _straight(self, block: Block, sink: Sink, reader: Reader) -> None:
        source = self.sources[block.tensor]
        width = math.prod(source.shape[1:])
        if block.columns == width:
            begin, nbytes = block.first * source.row_bytes, block.rows * source.row_bytes
            self._count(sink.fill(nbytes, lambda at, into: reader.read(source, begin + at, into)), nbytes)
            return
        step = max(1, _BATCH_BYTES // source.row_bytes)
        for first in range(block.first, block.first + block.rows, step):
            rows = min(step, block.first + block.rows - first)
            self._write(np.ascontiguousarray(_read(source, first, rows, block, reader)), sink)

    def _transposed(self, stack: BlockStack, sink: Sink, reader: Reader) -> None:
        stacked = np.empty(
            (sum(block.rows for block in stack.blocks), stack.blocks[0].columns), _ELEMENT[self._item_bytes]
        )
        row = 0
        for block in stack.blocks:
            source = self.sources[block.tensor]
            target = stacked[row : row + block.rows]
            if block.columns == math.prod(source.shape[1:]):
                reader.read_rows(source, block.first, block.rows, memoryview(target).cast("B"))
            else:
                step = max(1, _BATCH_BYTES // source.row_bytes)
                for at in range(0, block.rows, step):
                    rows = min(step, block.rows - at)
                    target[at : at + rows] = _read(source, block.first + at, rows, block, reader)
            row += block.rows
        rows, columns = stacked.shape
        # A multiple of the kernel's tile: 64 rows of an expert as wide as DeepSeek-V3's are half a MB.
        step = max(128, _BATCH_BYTES // (rows * stacked.itemsize) // 128 * 128)
        for column in range(0, columns, step):
            panel = np.empty((min(step, columns - column), rows), stacked.dtype)
            columns_as_rows(stacked, column, panel)
            self._write(panel, sink)


def _read(source: Source, first: int, rows: int, block: Block, reader: Reader) -> NDArray[Any]:
    """The block's columns of rows [first, first + rows) of the source, a view of whole rows."""
    buffer = bytearray(rows * source.row_bytes)
    reader.read_rows(source, first, rows, memoryview(buffer))
    rows_read = np.frombuffer(buffer, _ELEMENT[ITEM_BYTES[source.dtype]]).reshape(rows, -1)
    return rows_read[:, block.column : block.column + block.columns]
