# SPDX-License-Identifier: Apache-2.0
"""What a Hugging Face checkpoint directory holds, read from its safetensors headers only.

A safetensors file is an 8-byte little-endian header length, a JSON header
`{name: {"dtype", "shape", "data_offsets": [begin, end]}, "__metadata__": {...}}`, and the bytes of the tensors; the
offsets count from the end of the header (https://github.com/huggingface/safetensors, "Format").
"""

from __future__ import annotations

import json
import math
import stat
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recipe.weights.errors import WeightsError
from recipe.weights.inputs import Mark, mark_of
from recipe.weights.wholeness import HEAD_BYTES, check_head, check_numbers, check_unfinished, first_hole, read_json

# Bytes of one element for every safetensors dtype.
ITEM_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2,
    "I32": 4, "U32": 4, "F32": 4, "I64": 8, "U64": 8, "F64": 8,
}  # fmt: skip
# The limit of the safetensors library itself.
_MAX_HEADER = 100_000_000
INDEX_NAME = "model.safetensors.index.json"
#: The key of config.json by which a checkpoint without contents says that it has none.
HEADERS_ONLY = "recipe_headers_only"


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """One tensor in a file: its bytes are file[begin : begin + nbytes]."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    begin: int
    nbytes: int

    @property
    def where(self) -> str:
        return f"{self.file.name}: {self.name}"


def read_header(file: Path) -> dict[str, TensorEntry]:
    """The tensors of a safetensors file, checked against the file's size: they follow each other up to its end.

    Raises WeightsError for a file that is missing, truncated, something else, or has a corrupt header, naming the
    tensor where one is at fault.
    """
    try:
        status = file.stat()
        if not stat.S_ISREG(status.st_mode):
            raise WeightsError(f"{file}: is no plain file; a shard is expected")
        size = status.st_size
        with file.open("rb") as stream:
            head = stream.read(HEAD_BYTES)
            check_head(file, head)
            if len(head) < 8:
                raise WeightsError(f"{file}: {size} bytes are no safetensors file; download it again")
            (length,) = struct.unpack("<Q", head[:8])
            if length > min(size - 8, _MAX_HEADER):
                raise WeightsError(
                    f"{file}: its header claims {length} bytes of the file's {size}; it is truncated or no safetensors"
                )
            stream.seek(8)
            raw = stream.read(length)
    except OSError as error:
        raise WeightsError(f"{file}: cannot be read ({error.strerror}); is the shard there?") from error
    try:
        header = json.loads(raw, object_pairs_hook=_without_doubles)
        if not isinstance(header, dict):
            raise ValueError("not an object")
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{file}: corrupt header ({error}); download it again") from error
    entries = {}
    for name, record in header.items():
        if name != "__metadata__":
            entries[name] = _entry(file, size, 8 + length, name, record)
    _check_places(file, 8 + length, size, entries.values())
    return entries


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)} stands there twice")
    return mapping


def _check_places(file: Path, data: int, size: int, entries: Iterable[TensorEntry]) -> None:
    """Require that the tensors share no byte of the file from `data` on, and leave none of it out."""
    end, before = data, "the header"
    gap = ""
    for entry in sorted((e for e in entries if e.nbytes), key=lambda e: e.begin):
        if entry.begin < end:
            raise WeightsError(f"{file}: corrupt header: {entry.name} and {before} share bytes; download it again")
        if entry.begin > end and not gap:
            gap = f"{entry.begin - end} bytes between {before} and {entry.name}"
        end, before = entry.begin + entry.nbytes, entry.name
    if end < size and not gap:
        gap = f"{size - end} bytes after {before}"
    if gap:
        raise WeightsError(f"{file}: {gap} belong to no tensor; download it again")


def _entry(file: Path, size: int, data: int, name: str, record: Any) -> TensorEntry:
    try:
        dtype, shape = record["dtype"], tuple(record["shape"])
        begin, end = record["data_offsets"]
        numbers = (*shape, begin, end)
        if not all(type(n) is int and n >= 0 for n in numbers):
            raise ValueError("negative or fractional number")
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{file}: corrupt header entry of {name} ({error!r})") from error
    if dtype not in ITEM_BYTES:
        raise WeightsError(f"{file}: {name} has dtype {dtype}; known are {', '.join(ITEM_BYTES)}")
    nbytes = math.prod(shape) * ITEM_BYTES[dtype]
    if end - begin != nbytes:
        raise WeightsError(
            f"{file}: {name} is {dtype} {list(shape)}, which takes {nbytes} bytes, and the header gives it "
            f"{end - begin}; download the file again"
        )
    if data + end > size:
        raise WeightsError(f"{file}: truncated: {name} ends at byte {data + end}, the file has {size}")
    return TensorEntry(name, dtype, shape, file, data + begin, nbytes)


@dataclass(frozen=True)
class HfCheckpoint:
    """A checkpoint directory: its config.json and every tensor of its safetensors files.

    marks: of its files, before they were read. headers_only: the shards have no contents and say so
    (`recipe.tiny.published`); they do for a plan.
    """

    directory: Path
    config: dict[str, Any]
    tensors: dict[str, TensorEntry]
    marks: dict[Path, Mark]
    headers_only: bool = False

    @property
    def nbytes(self) -> int:
        return sum(entry.nbytes for entry in self.tensors.values())

    @property
    def only_plan(self) -> str:
        """Why no tensor of it can be read; "" where they can."""
        said = (
            f"{self.directory}: has headers and no contents, for plans ({HEADERS_ONLY} in config.json); use --dry-run"
        )
        return said if self.headers_only else ""


def is_shard_name(name: str) -> bool:
    """Whether this is the name of a safetensors file, or of what is left of one (`X.safetensors.1`)."""
    return ".safetensors" in name and not name.endswith(".json")


def _shards(directory: Path) -> tuple[list[Path], dict[str, str]]:
    """The files of tensors, and what the index (if there is one) says of each tensor."""
    index_file = directory / INDEX_NAME
    weight_map: dict[str, str] = {}
    if index_file.exists():
        weight_map = read_json(index_file, "index").get("weight_map", {})
        if not isinstance(weight_map, dict) or not weight_map:
            raise WeightsError(f"{index_file}: no weight_map; it should name the file of every tensor")
        for tensor, name in weight_map.items():
            if not isinstance(name, str) or Path(name).name != name or not name.isprintable():
                raise WeightsError(
                    f"{index_file}: weight_map has {name!r} for {tensor}, which is no name or lies outside"
                )
        files = [directory / name for name in sorted(set(weight_map.values()))]
    else:
        files = sorted(directory.glob("*.safetensors"))
        if not files:
            raise WeightsError(f"{directory}: no safetensors files; .bin checkpoints are not read")
        # An index says which files there are: in a cast without the prediction layer, that layer's own are not.
        check_numbers(directory, [file.name for file in files])
    return files, weight_map


def _check_holes(file: Path, entries: Iterable[TensorEntry]) -> None:
    """Require that all bytes of the tensors, which follow each other to the end of the file, were written."""
    ordered = sorted(entries, key=lambda e: e.begin)
    if not ordered:
        return
    hole = first_hole(file, ordered[0].begin, ordered[-1].begin + ordered[-1].nbytes)
    if hole is not None:
        entry = next(e for e in ordered if hole < e.begin + e.nbytes)
        raise WeightsError(
            f"{entry.where}: nothing was ever written from byte {hole} of the file on (a hole); download it again"
        )


def open_checkpoint(directory: Path) -> HfCheckpoint:
    """Read config.json, the index (if there is one) and all headers; no tensor is read.

    Raises WeightsError for missing shards, index entries without a tensor, tensors in two files, and what a download
    that is not finished leaves: notes beside the files, pointers, holes (`recipe.weights.wholeness`).
    """
    if not directory.is_dir():
        raise WeightsError(f"{directory}: no such directory; expected a Hugging Face checkpoint")
    marks = {file: mark_of(file) for file in (directory / "config.json", directory / INDEX_NAME) if file.exists()}
    config = read_json(directory / "config.json", "config.json")
    files, weight_map = _shards(directory)
    names = {file.name for file in files}
    check_unfinished(directory, lambda name: name in names or not is_shard_name(name))
    headers_only = config.get(HEADERS_ONLY) is True
    tensors: dict[str, TensorEntry] = {}
    for file in files:
        marks[file] = mark_of(file)
        entries = read_header(file)
        for name, entry in entries.items():
            if name in tensors:
                raise WeightsError(f"{file}: {name} is also in {tensors[name].file.name}; one of them must go")
            tensors[name] = entry
        if not headers_only:
            _check_holes(file, entries.values())
    for name, file_name in weight_map.items():
        if name not in tensors or tensors[name].file.name != file_name:
            raise WeightsError(f"{directory / INDEX_NAME}: {name} should be in {file_name}, which does not hold it")
    return HfCheckpoint(directory, config, tensors, marks, headers_only)
