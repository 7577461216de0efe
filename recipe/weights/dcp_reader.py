# SPDX-License-Identifier: Apache-2.0
"""Reads a `torch.distributed.checkpoint` directory without torch, and without running anything it names.

Its pickles are foreign data: the names in them resolve to inert stand-ins, and any name beyond those that a checkpoint
of tensors consists of is refused.
"""

from __future__ import annotations

import contextlib
import gc
import io
import json
import math
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from isal import isal_zlib

from recipe.weights.dcp_metadata import METADATA, TORCH_DTYPES, Blob, Chunk, StoredTensor
from recipe.weights.errors import WeightsError
from recipe.weights.hf_checkpoint import ITEM_BYTES, TensorEntry
from recipe.weights.source import Reader
from recipe.weights.torch_pickle import STORAGE_CLASS

_MODULE = "torch.distributed.checkpoint.metadata"
_PLANNER = "torch.distributed.checkpoint.planner"
# A checkpoint of 671B parameters with its optimizer needs about 100 MB.
_MAX_METADATA = 2**31
_MAX_DATA_PICKLE = 2**20
_CHECKED_BYTES = 512 * 1024
_CHECKED_KEPT = 4096


class _Instance:
    """A stand-in for an instance: keeps the fields it is given."""

    __slots__ = ("fields",)

    def __setstate__(self, state: Any) -> None:
        self.fields = state


class _Metadata(_Instance):
    __slots__ = ()


class _Tensor(_Instance):
    __slots__ = ()


class _Bytes(_Instance):
    __slots__ = ()


class _Index(_Instance):
    __slots__ = ()


class _Blob(_Instance):
    __slots__ = ()


def _text(*parts: str) -> str:
    return "/".join(str(part) for part in parts)


_METADATA_NAMES: dict[tuple[str, str], Any] = {
    (_MODULE, "Metadata"): _Metadata,
    (_MODULE, "TensorStorageMetadata"): _Tensor,
    (_MODULE, "BytesStorageMetadata"): _Bytes,
    (_MODULE, "ChunkStorageMetadata"): _Instance,
    (_MODULE, "TensorProperties"): _Instance,
    (_MODULE, "MetadataIndex"): _Index,
    (_MODULE, "StorageMeta"): _Instance,
    (_MODULE, "_MEM_FORMAT_ENCODING"): int,
    ("torch.distributed.checkpoint.filesystem", "_StorageInfo"): _Blob,
    # Megatron-core keeps each rank's plan here, so that it can save again without asking the other ranks.
    ("megatron.core.dist_checkpointing.strategies.torch", "MCoreSavePlan"): _Instance,
    (_PLANNER, "SavePlan"): _Instance,
    (_PLANNER, "WriteItem"): _Instance,
    (_PLANNER, "TensorWriteData"): _Instance,
    (_PLANNER, "WriteItemType"): int,
    ("torch.serialization", "_get_layout"): str,
    ("torch", "Size"): tuple,
    ("collections", "OrderedDict"): OrderedDict,
    ("pathlib", "PosixPath"): _text,
    **{("torch", name): dtype for dtype, name in TORCH_DTYPES.items()},
}


class _Unpickler(pickle.Unpickler):
    def __init__(
        self, stream: IO[bytes], names: dict[tuple[str, str], Any], storage: Callable[[Any], Any] | None
    ) -> None:
        super().__init__(stream)
        self._names, self._storage = names, storage

    def find_class(self, module: str, name: str) -> Any:
        stand_in = self._names.get((module, name))
        if stand_in is None:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which no checkpoint of tensors needs")
        return stand_in

    def persistent_load(self, pid: Any) -> Any:
        if self._storage is None:
            raise pickle.UnpicklingError("it refers to a storage")
        return self._storage(pid)


def _unpickle(
    stream: IO[bytes], names: dict[tuple[str, str], Any], where: str, storage: Callable[[Any], Any] | None = None
) -> Any:
    try:
        return _Unpickler(stream, names, storage).load()
    # Damaged bytes can make any opcode fail in any way.
    except Exception as error:
        raise WeightsError(f"{where}: cannot be read as a checkpoint ({error})") from error


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Suspend garbage collection: among millions of objects without a cycle it would double the time."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def _integers(value: Any) -> tuple[int, ...]:
    if not (isinstance(value, tuple) and all(type(n) is int and n >= 0 for n in value)):
        raise TypeError(f"{value!r} is no list of sizes")
    return value


def read_metadata(directory: Path, wanted: Container[str]) -> dict[str, StoredTensor]:
    """The tensors among `wanted` that the checkpoint holds, with their chunks.

    Raises WeightsError for a directory that is no complete torch_dist checkpoint, or whose `.metadata` names anything
    but a checkpoint's parts.
    """
    try:
        backend = json.loads((directory / "metadata.json").read_text(encoding="utf-8"))["sharded_backend"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise WeightsError(f"{directory}: no Megatron distributed checkpoint (metadata.json: {error})") from error
    if backend != "torch_dist":
        raise WeightsError(f"{directory}: its format is {backend!r}; this tool reads torch_dist")
    file = directory / METADATA
    try:
        if file.stat().st_size > _MAX_METADATA:
            raise WeightsError(f"{file}: {file.stat().st_size} bytes; at most {_MAX_METADATA} are read")
        with file.open("rb") as stream, _no_collection():
            metadata = _unpickle(stream, _METADATA_NAMES, str(file))
    except OSError as error:
        raise WeightsError(f"{file}: cannot be read ({error.strerror}); is the checkpoint complete?") from error
    try:
        if not isinstance(metadata, _Metadata):
            raise TypeError(f"{type(metadata).__name__} instead of Metadata")
        return _tensors(metadata, wanted)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise WeightsError(f"{file}: is no metadata of a checkpoint ({error!r})") from error


def _tensors(metadata: _Metadata, wanted: Container[str]) -> dict[str, StoredTensor]:
    blobs: dict[tuple[str, tuple[int, ...]], Blob] = {}
    for index, blob in metadata.fields["storage_data"].items():
        name = index.fields["fqn"]
        if name in wanted and index.fields.get("offset") is not None:
            at = blob.fields
            file, (offset, nbytes) = at["relative_path"], _integers((at["offset"], at["length"]))
            if not isinstance(file, str) or Path(file).name != file:
                raise ValueError(f"{name} is stored in {file!r}, outside the directory")
            if at.get("transform_descriptors"):
                raise ValueError(f"{name} is stored compressed or encrypted")
            blobs[name, _integers(index.fields["offset"])] = Blob(file, offset, nbytes)
    tensors: dict[str, StoredTensor] = {}
    for name, record in metadata.fields["state_dict_metadata"].items():
        if name not in wanted or not isinstance(record, _Tensor):
            continue
        dtype = record.fields["properties"].fields[0]
        if dtype not in TORCH_DTYPES:
            raise ValueError(f"{name} has dtype {dtype!r}")
        tensor = tensors[name] = StoredTensor(dtype, _integers(record.fields["size"]))
        for chunk in record.fields["chunks"]:
            offsets, shape = _integers(chunk.fields["offsets"]), _integers(chunk.fields["sizes"])
            if not len(offsets) == len(shape) == len(tensor.shape):
                raise ValueError(f"a piece of {name} has other axes than the tensor")
            if any(at + size > length for at, size, length in zip(offsets, shape, tensor.shape, strict=True)):
                raise ValueError(f"a piece of {name} at {offsets} lies outside of {tensor.shape}")
            tensor.chunks.append(Chunk(offsets, shape, blobs[name, offsets]))
    return tensors


@dataclass(frozen=True, slots=True)
class Storage:
    """The numbers of a stored tensor: element [i, j, …] is number offset + i·strides[0] + j·strides[1] + … of `entry`.

    entry: the bytes in the file; crc32: their checksum by the archive; shape, strides (in elements) and offset: of the
    tensor that was saved.
    """

    entry: TensorEntry
    crc32: int
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Slice(io.RawIOBase):
    """Bytes of a file as a file of their own, for zipfile."""

    def __init__(self, reader: Reader, entry: TensorEntry) -> None:
        self._reader, self._entry, self._at = reader, entry, 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (0, self._at, self._entry.nbytes)[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)
        count = max(0, min(len(view), self._entry.nbytes - self._at))
        if count:
            self._reader.read_raw(self._entry, self._at, view[:count])
        self._at += count
        return count


@dataclass(frozen=True, slots=True)
class _StorageReference:
    """The pickle's reference to a storage: torch's class, the record in the archive, and the number of elements."""

    kind: str
    key: str
    elements: int


def _rebuild(storage: Any, offset: Any, shape: Any, strides: Any, *rest: Any) -> tuple[Any, Any, Any, Any]:
    return storage, offset, shape, strides


_TENSOR_NAMES: dict[tuple[str, str], Any] = {
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild,
    ("collections", "OrderedDict"): OrderedDict,
    **{("torch", name): dtype for dtype, name in STORAGE_CLASS.items()},
}


def read_storage(directory: Path, name: str, chunk: Chunk, dtype: str, reader: Reader) -> Storage:
    """Where the numbers of a chunk are. Raises WeightsError for an archive of anything but one such tensor."""
    blob = chunk.blob
    archive_bytes = TensorEntry(name, "U8", (blob.nbytes,), directory / blob.file, blob.offset, blob.nbytes)
    where = f"{directory / blob.file}: {name} at byte {blob.offset}"
    try:
        with zipfile.ZipFile(_Slice(reader, archive_bytes)) as archive:
            records = {info.filename.partition("/")[2]: info for info in archive.infolist()}
            if records["data.pkl"].file_size > _MAX_DATA_PICKLE:
                raise ValueError("its data.pkl is too large for one tensor's")
            content = io.BytesIO(archive.read(records["data.pkl"]))
            rebuilt = _unpickle(content, _TENSOR_NAMES, where, lambda pid: _StorageReference(pid[1], pid[2], pid[4]))
            reference, offset, shape, strides = rebuilt
            info = records[f"data/{reference.key}"]
            begin = _data_begin(archive, info)
    except (zipfile.BadZipFile, KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise WeightsError(f"{where}: is no torch.save archive of one tensor ({error})") from error
    nbytes = info.file_size
    if info.compress_type != zipfile.ZIP_STORED or begin + nbytes > blob.nbytes:
        raise WeightsError(f"{where}: its bytes are compressed or cut short")
    if reference.kind != dtype:
        raise WeightsError(f"{where}: holds {reference.kind}, .metadata says {dtype}")
    storage = Storage(
        TensorEntry(name, "U8", (nbytes,), archive_bytes.file, blob.offset + begin, nbytes),
        info.CRC,
        *_fit(where, chunk.shape, offset, shape, strides),
    )
    last = storage.offset + sum((n - 1) * s for n, s in zip(storage.shape, storage.strides, strict=True))
    if math.prod(chunk.shape) and (last + 1) * ITEM_BYTES[dtype] > nbytes:
        raise WeightsError(f"{where}: element {last} of a storage of {nbytes} bytes")
    return storage


def check_crc(storage: Storage, reader: Reader) -> None:
    """Read all bytes of the storage and compare their checksum with the archive's, unless this reader has done so.

    Raises WeightsError where they differ.
    """
    entry = storage.entry
    place = entry.file, entry.begin
    if place in reader.checked:
        return
    crc = 0
    piece = memoryview(bytearray(_CHECKED_BYTES))
    for at in range(0, entry.nbytes, _CHECKED_BYTES):
        part = piece[: min(_CHECKED_BYTES, entry.nbytes - at)]
        reader.read_raw(entry, at, part)
        crc = isal_zlib.crc32(part, crc)
    require_crc(storage, crc)
    if len(reader.checked) >= _CHECKED_KEPT:
        reader.checked.clear()
    reader.checked.add(place)


def require_crc(storage: Storage, crc: int) -> None:
    """Raise WeightsError where `crc`, that of all bytes of the storage, is not the archive's."""
    if crc != storage.crc32:
        raise WeightsError(
            f"{storage.entry.file}: {storage.entry.name} at byte {storage.entry.begin}: its bytes have CRC-32 "
            f"{crc:08x}, its archive says {storage.crc32:08x}; copy the file again"
        )


def _data_begin(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> int:
    """Where the record's bytes begin: after the local header, whose name and extra field need not be as long as the
    directory's."""
    stream = archive.fp
    assert stream is not None
    stream.seek(info.header_offset)
    header = stream.read(30)
    if len(header) < 30 or header[:4] != b"PK\x03\x04":
        raise ValueError("a record has no header")
    return info.header_offset + 30 + int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")


def _fit(
    where: str, wanted: tuple[int, ...], offset: Any, shape: Any, strides: Any
) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
    """Offset, shape and strides along the axes of the chunk, which may have more axes of size 1 than what was saved."""
    try:
        (offset,), shape, strides = _integers((offset,)), _integers(shape), _integers(strides)
        real = [(n, s) for n, s in zip(shape, strides, strict=True) if n != 1]
        if [n for n, _ in real] != [n for n in wanted if n != 1]:
            raise ValueError(f"it is {list(shape)}, .metadata says {list(wanted)}")
    except (TypeError, ValueError) as error:
        raise WeightsError(f"{where}: {error}") from error
    real_axes = iter(real)
    return offset, wanted, tuple(next(real_axes)[1] if n != 1 else 0 for n in wanted)


def is_row_major(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether elements follow each other in the order of the last axis first."""
    expected = 1
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size != 1 and stride != expected:
            return False
        expected *= size
    return True
