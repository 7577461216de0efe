# SPDX-License-Identifier: Apache-2.0
"""Which bytes of the Hugging Face checkpoint become which piece of which Megatron tensor; decided before reading."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from recipe.weights.errors import WeightsError
from recipe.weights.hf_checkpoint import ITEM_BYTES, HfCheckpoint, TensorEntry
from recipe.weights.layout import Layout, Place
from recipe.weights.torch_pickle import STORAGE_CLASS

# Pieces are cut so that a reader that wants a slice does not read all of a large tensor.
PIECE_BYTES = 64 * 2**20
FILE_BYTES = 512 * 2**20


@dataclass(frozen=True)
class Piece:
    """One archive: rows of one Hugging Face tensor at `offsets` of every tensor in `names`."""

    names: tuple[str, ...]
    offsets: tuple[int, ...]
    shape: tuple[int, ...]
    dtype: str
    source: TensorEntry
    begin: int
    nbytes: int


@dataclass(frozen=True)
class Plan:
    """Everything the writer needs: the pieces of each output file, the tensors' shapes and the extra states."""

    files: tuple[tuple[Piece, ...], ...]
    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, str]
    extra_states: tuple[str, ...]
    dropped: tuple[str, ...]

    @property
    def nbytes(self) -> int:
        return sum(piece.nbytes for pieces in self.files for piece in pieces)

    @property
    def pieces(self) -> int:
        return sum(len(pieces) for pieces in self.files)


def _check(checkpoint: HfCheckpoint, place: Place) -> TensorEntry:
    entry = checkpoint.tensors.get(place.hf_name)
    if entry is None:
        raise WeightsError(
            f"{checkpoint.directory}: no tensor {place.hf_name} in any shard; config.json says the model has it"
        )
    if entry.shape != place.hf_shape:
        raise WeightsError(f"{entry.where} is {list(entry.shape)}, config.json makes it {list(place.hf_shape)}")
    if entry.dtype not in STORAGE_CLASS:
        raise WeightsError(f"{entry.where} is {entry.dtype}; cast the checkpoint to BF16 or F32 first")
    return entry


def _pieces(entry: TensorEntry, place: Place) -> Iterable[Piece]:
    row_bytes = place.row_elements * ITEM_BYTES[entry.dtype]
    rows = max(1, PIECE_BYTES // row_bytes)
    for first in range(0, place.rows, rows):
        offsets, shape = place.box(first, min(rows, place.rows - first))
        begin = entry.begin + (place.first + first) * row_bytes
        nbytes = min(rows, place.rows - first) * row_bytes
        yield Piece(place.names, offsets, shape, entry.dtype, entry, begin, nbytes)


def make_plan(checkpoint: HfCheckpoint, layout: Layout, droppable: tuple[str, ...]) -> Plan:
    """Lay every tensor of the checkpoint into the Megatron layout.

    droppable: Hugging Face names that may be left behind. Raises WeightsError for a tensor that is missing, has
    another shape, cannot be read as it is, or has no place.
    """
    pieces: list[Piece] = []
    shapes: dict[str, tuple[int, ...]] = {}
    dtypes: dict[str, str] = {}
    for place in layout.places:
        entry = _check(checkpoint, place)
        for name in place.names:
            shapes[name] = place.shape
            if dtypes.setdefault(name, entry.dtype) != entry.dtype:
                raise WeightsError(f"{entry.where} is {entry.dtype}, other parts of {name} are {dtypes[name]}")
        pieces.extend(_pieces(entry, place))
    known = {place.hf_name for place in layout.places} | set(droppable)
    unknown = sorted(set(checkpoint.tensors) - known)
    if unknown:
        more = f" (and {len(unknown) - 1} more)" if len(unknown) > 1 else ""
        raise WeightsError(f"{checkpoint.tensors[unknown[0]].where}{more} has no place in the model of config.json")
    # In the order of the source files, so that reading is sequential; the result does not depend on the workers.
    pieces.sort(key=lambda piece: (piece.source.file.name, piece.begin))
    files: list[list[Piece]] = [[]]
    size = 0
    for piece in pieces:
        if files[-1] and size + piece.nbytes > FILE_BYTES:
            files.append([])
            size = 0
        files[-1].append(piece)
        size += piece.nbytes
    return Plan(tuple(map(tuple, files)), shapes, dtypes, layout.extra_states, tuple(sorted(droppable)))
