# SPDX-License-Identifier: Apache-2.0
"""The pickles inside `torch.save` archives, written opcode by opcode so that no torch is needed to write them.

Protocol 2, and only what `torch.load(weights_only=True)` admits: a contiguous CPU tensor is a call of
`torch._utils._rebuild_tensor_v2` on the storage that record `data/<key>` of the archive holds (docs.pytorch.org,
"Serialization semantics"; opcodes: Python's pickletools).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Mapping, Sequence

STORAGE_CLASS = {"F32": "FloatStorage", "BF16": "BFloat16Storage", "F16": "HalfStorage"}


def string(text: str) -> bytes:
    raw = text.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def integer(value: int) -> bytes:
    if value < 2**31:
        return b"J" + struct.pack("<i", value)
    raw = value.to_bytes(8, "little", signed=True)
    return b"\x8a\x08" + raw


def real(value: float) -> bytes:
    return b"G" + struct.pack(">d", value)


def tuple_of(items: Iterable[bytes]) -> bytes:
    return b"(" + b"".join(items) + b"t"


def mapping(items: Mapping[str, bytes]) -> bytes:
    """A dict of already pickled values."""
    return b"}(" + b"".join(string(name) + value for name, value in items.items()) + b"u"


def _global(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def tensor(dtype: str, shape: Sequence[int], key: int) -> bytes:
    """A contiguous tensor whose storage is record `data/<key>`; dtype is a safetensors name of STORAGE_CLASS."""
    strides = [math.prod(shape[i + 1 :]) for i in range(len(shape))]
    storage = tuple_of(
        [
            string("storage"),
            _global("torch", STORAGE_CLASS[dtype]),
            string(str(key)),
            string("cpu"),
            integer(math.prod(shape)),
        ]
    )
    arguments = tuple_of(
        [
            storage + b"Q",
            integer(0),
            tuple_of(integer(n) for n in shape),
            tuple_of(integer(n) for n in strides),
            b"\x89",
            _global("collections", "OrderedDict") + b")R",
        ]
    )
    return _global("torch._utils", "_rebuild_tensor_v2") + arguments + b"R"


def document(value: bytes) -> bytes:
    """The whole pickle of one value."""
    return b"\x80\x02" + value + b"."
