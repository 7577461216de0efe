# SPDX-License-Identifier: Apache-2.0
"""Hugging Face (FP8 or BF16) -> Megatron's `torch_dist` checkpoint, which any layout of ranks can load.

The directory holds metadata.json (the format), common.pt (an empty dict), `__<n>_0.distcp` files of torch.save
archives, and `.metadata`, which says where each piece of each tensor is. Every Hugging Face tensor is a contiguous run
of a Megatron one, so a piece is some of its rows with an archive around them. Nothing loads the directory without
`.metadata`, so that is the commit point. `huggingface/` in it has config.json and tokenizer: what the rollout, whose
weights come from the actor, needs of a Hugging Face directory.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from recipe.weights import key_maps, torch_pickle
from recipe.weights.cast import check_quantisation
from recipe.weights.dcp_metadata import FORMAT, METADATA, Blob, Chunk, StoredTensor, metadata_pickle
from recipe.weights.errors import WeightsError
from recipe.weights.hf_checkpoint import HfCheckpoint, TensorEntry, open_checkpoint
from recipe.weights.hf_directory import HUGGING_FACE, companions, plain_config, strays
from recipe.weights.job import Job, OutputFile, digests
from recipe.weights.job_cli import Planned
from recipe.weights.layout import MegatronLayout, Placement
from recipe.weights.model_sources import sources_of
from recipe.weights.output import Sink
from recipe.weights.source import Reader, Source
from recipe.weights.torch_zip import Archive, tensor_archive

TOOL = "hf-to-torch-dist"
# Pieces are cut so that a rank that wants a slice does not read all of a large tensor.
PIECE_BYTES = 64 * 2**20
# Largest size of a file: as much as each worker has to do again after a kill.
FILE_BYTES = 512 * 2**20
# Archives, and tensors within them, begin at multiples of this, so that no bfloat16 number lies in two of the sink's
# pieces.
_ALIGN = 64
_BLOCK_ROWS = 128
_EXTRA_STATES = "__extra_state_0.distcp"


@functools.lru_cache(maxsize=4096)
def _archive(dtype: str, shape: tuple[int, ...], nbytes: int) -> tuple[Archive, int]:
    """The archive around a piece, and its size."""
    archive = tensor_archive(dtype, shape, nbytes)
    return archive, archive.nbytes


@dataclass(frozen=True, slots=True)
class Piece:
    """One archive: `content` bytes of a source from `begin` on, a box at `offsets` of every tensor in `names`."""

    names: tuple[str, ...]
    offsets: tuple[int, ...]
    shape: tuple[int, ...]
    source: Source
    begin: int
    content: int

    @property
    def label(self) -> str:
        return self.source.name

    @property
    def reads(self) -> Sequence[TensorEntry]:
        return self.source.entries

    @property
    def archive_bytes(self) -> int:
        return _archive(self.source.dtype, self.shape, self.content)[1]

    @property
    def nbytes(self) -> int:
        """Bytes of the archive, and of the zeros up to where the next one may begin."""
        return -(-self.archive_bytes // _ALIGN) * _ALIGN

    def emit(self, sink: Sink, reader: Reader) -> None:
        archive, archive_bytes = _archive(self.source.dtype, self.shape, self.content)
        sink.write(archive.head)
        crc = sink.fill(self.content, lambda at, into: reader.read(self.source, self.begin + at, into))
        sink.write(archive.tail([crc]) + bytes(self.nbytes - archive_bytes))


def _pieces(place: Placement, source: Source) -> Iterator[Piece]:
    rows = max(1, PIECE_BYTES // source.row_bytes)
    if rows > _BLOCK_ROWS:
        rows -= rows % _BLOCK_ROWS  # whole blocks of scales
    for first in range(0, place.rows, rows):
        count = min(rows, place.rows - first)
        offsets, shape = place.box(first, count)
        begin = (place.first + first) * source.row_bytes
        yield Piece(place.names, offsets, shape, source, begin, count * source.row_bytes)


def _files(pieces: Iterable[Piece]) -> list[list[Piece]]:
    """The pieces of each file, in the order of the inputs, so that reading is sequential."""
    files: list[list[Piece]] = [[]]
    size = 0
    for piece in sorted(pieces, key=lambda p: (p.source.entry.file.name, p.source.entry.begin, p.begin)):
        if files[-1] and size + piece.content > FILE_BYTES:
            files.append([])
            size = 0
        files[-1].append(piece)
        size += piece.content
    return files


def _stored(files: Sequence[OutputFile]) -> dict[str, StoredTensor]:
    """Where each chunk of each tensor is, in the order in which they are written."""
    stored: dict[str, StoredTensor] = {}
    for file in files:
        at = 0
        for piece in file.parts:
            assert isinstance(piece, Piece)
            chunk = Chunk(piece.offsets, piece.shape, Blob(file.name, at, piece.archive_bytes))
            for name in piece.names:
                stored.setdefault(name, StoredTensor(piece.source.dtype, ())).chunks.append(chunk)
            at += piece.nbytes
    return stored


def _check_dtypes(layout: MegatronLayout, sources: dict[str, Source]) -> None:
    first: dict[str, Source] = {}
    for place in layout.places:
        source = sources[place.hf_name]
        other = first.setdefault(place.names[0], source)
        if source.dtype != other.dtype:
            raise WeightsError(
                f"{source.where} is {source.dtype}, {other.where} is {other.dtype}; {place.names[0]} is both"
            )


def _small_files(layout: MegatronLayout, files: Sequence[OutputFile]) -> list[tuple[str, bytes]]:
    nothing, nothing_in_a_list = (
        Archive(torch_pickle.document(value), []) for value in (torch_pickle.mapping({}), b"]Na")
    )
    states = nothing_in_a_list.head + nothing_in_a_list.tail([])
    shapes = {name: place.shape for place in layout.places for name in place.names}
    stored = _stored(files)
    for name, tensor in stored.items():
        tensor.shape = shapes[name]
    return [
        ("common.pt", nothing.head + nothing.tail([])),
        (_EXTRA_STATES, states),
        ("metadata.json", json.dumps(FORMAT).encode()),
        (METADATA, metadata_pickle(stored, layout.extra_states, Blob(_EXTRA_STATES, 0, len(states)))),
    ]


def _description(checkpoint: HfCheckpoint, dtype: str) -> list[tuple[str, bytes]]:
    small = companions(checkpoint.directory, checkpoint.marks)
    config = "config.json", plain_config(checkpoint.config, dtype)
    return [(f"{HUGGING_FACE}/{name}", content) for name, content in (*small, config)]


def plan(source: Path, output: Path) -> Planned:
    """The job that converts `source`, from headers alone.

    Raises WeightsError for a checkpoint that is not whole, and for a model that has no key map.
    """
    checkpoint = open_checkpoint(source)
    config = checkpoint.config
    check_quantisation(checkpoint)
    layout = key_maps.layout_of(config, source / "config.json")
    sources, dropped = sources_of(checkpoint, layout)
    _check_dtypes(layout, sources)
    pieces = (piece for place in layout.places for piece in _pieces(place, sources[place.hf_name]))
    files = [OutputFile(f"__{number}_0.distcp", parts) for number, parts in enumerate(_files(pieces))]
    small_files = functools.cache(lambda: _small_files(layout, files))
    described = _description(checkpoint, sources[layout.places[0].hf_name].dtype)
    job = Job(
        tool=TOOL,
        input=source,
        output=output,
        **digests(
            TOOL,
            {"config": config, "cuts": [PIECE_BYTES, FILE_BYTES]},
            checkpoint.tensors.values(),
            checkpoint.marks,
            described,
        ),
        files=files,
        finish=lambda: [*described, *small_files()],
        marks=checkpoint.marks,
        small_bytes=sum(len(content) for _, content in (*described, *small_files())),
        only_plan=checkpoint.only_plan,
    )
    read = [entry for tensor_source in sources.values() for entry in tensor_source.entries]
    names = {name for place in layout.places for name in place.names}
    remarks = [f"{len(names)} Megatron names, {sum(len(file.parts) for file in files)} pieces, loadable in any layout"]
    if dropped:
        remarks.append(f"{len(dropped)} tensors left behind (multi-token prediction, tied head, rotary buffers)")
    remarks.extend(strays(source, checkpoint.marks))
    return Planned(job, len(read), sum(entry.nbytes for entry in read), tuple(remarks))
