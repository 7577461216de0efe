# SPDX-License-Identifier: Apache-2.0
"""What a Hugging Face checkpoint directory holds, read from its safetensors headers only.

A safetensors file is an 8-byte little-endian header length, a JSON header
`{name: {"dtype", "shape", "data_offsets": [begin, end]}, "__metadata__": {...}}`, and the bytes of the tensors; the
offsets count from the end of the header (https://github.com/huggingface/safetensors, "Format").
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recipe.weights.errors import WeightsError

# Bytes of one element for every safetensors dtype.
ITEM_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2,
    "I32": 4, "U32": 4, "F32": 4, "I64": 8, "U64": 8, "F64": 8,
}  # fmt: skip
# The limit of the safetensors library itself.
_MAX_HEADER = 100_000_000
INDEX_NAME = "model.safetensors.index.json"


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
    """The tensors of a safetensors file, checked against the file's size.

    Raises WeightsError for a file that is missing, truncated or has a corrupt header, naming the tensor where one is
    at fault.
    """
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            prefix = stream.read(8)
            if len(prefix) < 8:
                raise WeightsError(f"{file}: {size} bytes are no safetensors file; download it again")
            (length,) = struct.unpack("<Q", prefix)
            if length > min(size - 8, _MAX_HEADER):
                raise WeightsError(
                    f"{file}: its header claims {length} bytes of the file's {size}; it is truncated or no safetensors"
                )
            raw = stream.read(length)
    except OSError as error:
        raise WeightsError(f"{file}: cannot be read ({error.strerror}); is the shard there?") from error
    try:
        header = json.loads(raw, object_pairs_hook=_without_doubles)
        if not isinstance(header, dict):
            raise ValueError("not an object")
    except ValueError as error:
        raise WeightsError(f"{file}: corrupt header ({error}); download it again") from error
    entries = {}
    for name, record in header.items():
        if name != "__metadata__":
            entries[name] = _entry(file, size, 8 + length, name, record)
    _check_overlaps(file, entries.values())
    return entries


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)} stands there twice")
    return mapping


def _check_overlaps(file: Path, entries: Iterable[TensorEntry]) -> None:
    end, before = 0, ""
    for entry in sorted((e for e in entries if e.nbytes), key=lambda e: e.begin):
        if entry.begin < end:
            raise WeightsError(f"{file}: corrupt header: {entry.name} and {before} share bytes; download it again")
        end, before = entry.begin + entry.nbytes, entry.name


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
    """A checkpoint directory: its config.json and every tensor of its safetensors files."""

    directory: Path
    config: dict[str, Any]
    tensors: dict[str, TensorEntry]

    @property
    def nbytes(self) -> int:
        return sum(entry.nbytes for entry in self.tensors.values())


def read_json(file: Path, what: str) -> dict[str, Any]:
    """The object in a JSON file; raises WeightsError, which calls it `what`."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise WeightsError(f"{file}: no {what} ({error.strerror})") from error
    except ValueError as error:
        raise WeightsError(f"{file}: not valid JSON ({error})") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{file}: expected a JSON object, found {type(content).__name__}")
    return content


def open_checkpoint(directory: Path) -> HfCheckpoint:
    """Read config.json, the index (if there is one) and all headers; no tensor is read.

    Raises WeightsError for missing shards, index entries without a tensor, and tensors in two files.
    """
    if not directory.is_dir():
        raise WeightsError(f"{directory}: no such directory; expected a Hugging Face checkpoint")
    config = read_json(directory / "config.json", "config.json")
    index_file = directory / INDEX_NAME
    weight_map: dict[str, str] | None = None
    if index_file.exists():
        weight_map = read_json(index_file, "index").get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise WeightsError(f"{index_file}: no weight_map; it should name the file of every tensor")
        names = sorted(set(weight_map.values()))
        if any(Path(name).name != name for name in names):
            raise WeightsError(f"{index_file}: a file outside the directory is named in weight_map")
        files = [directory / name for name in names]
    else:
        files = sorted(directory.glob("*.safetensors"))
        if not files:
            raise WeightsError(f"{directory}: no safetensors files; .bin checkpoints are not read")
    tensors: dict[str, TensorEntry] = {}
    for file in files:
        for name, entry in read_header(file).items():
            if name in tensors:
                raise WeightsError(f"{file}: {name} is also in {tensors[name].file.name}; one of them must go")
            tensors[name] = entry
    for name, file_name in (weight_map or {}).items():
        if name not in tensors or tensors[name].file.name != file_name:
            raise WeightsError(f"{index_file}: {name} should be in {file_name}, which does not hold it")
    return HfCheckpoint(directory, config, tensors)
