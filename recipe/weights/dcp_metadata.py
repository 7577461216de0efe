# SPDX-License-Identifier: Apache-2.0
"""What a `torch.distributed.checkpoint` directory holds, and its `.metadata` file written without torch.

`.metadata` is a pickled `torch.distributed.checkpoint.metadata.Metadata`: for every name a dtype, a shape and the
pieces it was cut into, and for every piece the file and the bytes that hold its `torch.save` archive. It is written
here opcode by opcode (protocol 2; opcodes: Python's pickletools), with the fields that torch 2.5 and later share.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from recipe.weights import torch_pickle

FORMAT = {
    "sharded_backend": "torch_dist",
    "sharded_backend_version": 1,
    "common_backend": "torch",
    "common_backend_version": 1,
}
METADATA = ".metadata"
# safetensors' name of a dtype -> torch's.
TORCH_DTYPES = {
    "F32": "float32", "BF16": "bfloat16", "F16": "float16", "F64": "float64", "I64": "int64", "I32": "int32",
    "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip
_MODULE = "torch.distributed.checkpoint.metadata"


@dataclass(frozen=True, slots=True)
class Blob:
    """Bytes [offset, offset + nbytes) of a file of the directory: one torch.save archive."""

    file: str
    offset: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """A box of a tensor, and where it is stored."""

    offsets: tuple[int, ...]
    shape: tuple[int, ...]
    blob: Blob


@dataclass
class StoredTensor:
    """A whole tensor and its chunks; dtype is safetensors' name."""

    dtype: str
    shape: tuple[int, ...]
    chunks: list[Chunk] = field(default_factory=list)


class _Writer:
    """Appends opcodes; texts, sizes and classes are written once and referred to afterwards."""

    def __init__(self) -> None:
        self.out = bytearray(b"\x80\x02")
        self._memo: dict[object, int] = {}

    def _known(self, key: object) -> bool:
        number = self._memo.get(key)
        if number is not None:
            self.out += b"j" + struct.pack("<I", number)
        return number is not None

    def _remember(self, key: object) -> None:
        self._memo[key] = len(self._memo)
        self.out += b"r" + struct.pack("<I", self._memo[key])

    def text(self, text: str) -> None:
        if not self._known(text):
            self.out += torch_pickle.string(text)
            self._remember(text)

    def name(self, module: str, name: str) -> None:
        if not self._known((module, name)):
            self.out += f"c{module}\n{name}\n".encode()
            self._remember((module, name))

    def size(self, sizes: tuple[int, ...]) -> None:
        if not self._known(sizes):
            self.name("torch", "Size")
            self.out += torch_pickle.tuple_of(torch_pickle.integer(n) for n in sizes) + b"\x85R"
            self._remember(sizes)

    def new(self, name: str, module: str = _MODULE) -> None:
        """An instance without fields; `}(`, fields and `ub` may follow."""
        self.name(module, name)
        self.out += b")\x81"

    def blob(self, blob: Blob) -> None:
        self.new("_StorageInfo", "torch.distributed.checkpoint.filesystem")
        self.out += b"}("
        self.text("relative_path")
        self.text(blob.file)
        for key, number in (("offset", blob.offset), ("length", blob.nbytes)):
            self.text(key)
            self.out += torch_pickle.integer(number)
        self.out += b"ub"

    def tensor(self, tensor: StoredTensor) -> None:
        self.new("TensorStorageMetadata")
        self.out += b"}("
        self.text("properties")
        self.new("TensorProperties")
        self.out += b"("
        self.name("torch", TORCH_DTYPES[tensor.dtype])
        self.name("torch.serialization", "_get_layout")
        self.text("torch.strided")
        self.out += b"\x85R\x89"  # requires_grad is false
        self.name(_MODULE, "_MEM_FORMAT_ENCODING")
        self.out += b"K\x00\x85R\x89tb"  # contiguous; pin_memory is false
        self.text("size")
        self.size(tensor.shape)
        self.text("chunks")
        self.out += b"]("
        for chunk in tensor.chunks:
            self.new("ChunkStorageMetadata")
            self.out += b"}("
            self.text("offsets")
            self.size(chunk.offsets)
            self.text("sizes")
            self.size(chunk.shape)
            self.out += b"ub"
        self.out += b"eub"

    def index(self, name: str, chunk: Chunk | None, number: int) -> None:
        self.new("MetadataIndex")
        self.out += b"}("
        self.text("fqn")
        self.text(name)
        self.text("index")
        if chunk is None:
            self.out += b"N"
        else:
            self.out += torch_pickle.integer(number)
            self.text("offset")
            self.size(chunk.offsets)
        self.out += b"ub"


def metadata_pickle(tensors: Mapping[str, StoredTensor], objects: Iterable[str], empty: Blob) -> bytes:
    """The content of `.metadata`; `objects` are names of which each is stored as the archive `empty`.

    `mcore_data` is Megatron-core's own attribute: it reads it for flattened optimizer tensors, and wants every name.
    """
    objects = tuple(objects)
    w = _Writer()
    w.new("Metadata")
    w.out += b"}("
    w.text("state_dict_metadata")
    w.out += b"}("
    for name, tensor in tensors.items():
        w.text(name)
        w.tensor(tensor)
    for name in objects:
        w.text(name)
        w.new("BytesStorageMetadata")
    w.out += b"u"
    w.text("planner_data")
    w.out += b"N"
    w.text("storage_data")
    w.out += b"}("
    for name, tensor in tensors.items():
        for number, chunk in enumerate(tensor.chunks):
            w.index(name, chunk, number)
            w.blob(chunk.blob)
    for name in objects:
        w.index(name, None, 0)
        w.blob(empty)
    w.out += b"u"
    w.text("mcore_data")
    w.out += b"}("
    for name in tensors:
        w.text(name)
        w.out += b"}"
    w.out += b"uub."
    return bytes(w.out)
