# SPDX-License-Identifier: Apache-2.0
"""The bytes around a tensor that make it a `torch.save` archive, so that a tensor can be streamed into one.

`torch.save` writes an uncompressed zip with the records data.pkl (a pickle that rebuilds the tensor around storage
"0"), byteorder, data/0 (the bytes) and version. `torch.load(weights_only=True)` reads what is made here; no torch is
needed to write it. Zip structures: APPNOTE.TXT 4.3.7 (local header), 4.3.12 (central directory), 4.3.16 (end).
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Sequence

STORAGE_CLASS = {"F32": "FloatStorage", "BF16": "BFloat16Storage", "F16": "HalfStorage"}
_ROOT = "archive"
_ALIGN = 64
# A zip without the 64-bit extension ends at 4 GiB.
MAX_PAYLOAD = 2**32 - 2**16


def _string(text: str) -> bytes:
    raw = text.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def _integer(value: int) -> bytes:
    if value < 2**31:
        return b"J" + struct.pack("<i", value)
    raw = value.to_bytes(8, "little", signed=True)
    return b"\x8a\x08" + raw


def _tuple(items: Sequence[bytes]) -> bytes:
    return b"(" + b"".join(items) + b"t"


def _global(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def tensor_pickle(dtype: str, shape: Sequence[int]) -> bytes:
    """The pickle (protocol 2) of a contiguous CPU tensor whose storage is record data/0."""
    strides = [math.prod(shape[i + 1 :]) for i in range(len(shape))]
    storage = _tuple(
        [
            _string("storage"),
            _global("torch", STORAGE_CLASS[dtype]),
            _string("0"),
            _string("cpu"),
            _integer(math.prod(shape)),
        ]
    )
    arguments = _tuple(
        [
            storage + b"Q",
            _integer(0),
            _tuple([_integer(n) for n in shape]),
            _tuple([_integer(n) for n in strides]),
            b"\x89",
            _global("collections", "OrderedDict") + b")R",
        ]
    )
    return b"\x80\x02" + _global("torch._utils", "_rebuild_tensor_v2") + arguments + b"R."


class _Record:
    def __init__(self, name: str, offset: int, size: int, crc: int) -> None:
        self.name = f"{_ROOT}/{name}".encode()
        self.offset, self.size, self.crc = offset, size, crc

    def _common(self, extra: int) -> bytes:
        # version needed 0, flags 0, stored, time 0, date 1980-01-01
        return struct.pack("<HHHHHIIIHH", 0, 0, 0, 0, 33, self.crc, self.size, self.size, len(self.name), extra)

    def local(self, align: bool = False) -> bytes:
        """The local header; with align, padded so that the data starts at a multiple of _ALIGN."""
        extra = b""
        if align:
            start = self.offset + 30 + len(self.name) + 4
            pad = -start % _ALIGN
            extra = b"FB" + struct.pack("<H", pad) + b"Z" * pad
        return b"PK\x03\x04" + self._common(len(extra)) + self.name + extra

    def central(self) -> bytes:
        attributes = struct.pack("<HHHII", 0, 0, 0, 0, self.offset)
        return b"PK\x01\x02" + struct.pack("<H", 0) + self._common(0) + attributes + self.name


class TensorArchive:
    """The archive of one tensor: `head`, then `payload` bytes, then `tail(crc of the payload)`.

    head holds a zero where the payload's CRC belongs; write crc32 as a little-endian uint32 at `crc_at` once known.
    """

    def __init__(self, dtype: str, shape: Sequence[int], payload: int) -> None:
        if payload > MAX_PAYLOAD:
            raise ValueError(f"a payload of {payload} bytes does not fit a zip without 64-bit extension; cut it")
        self._records: list[_Record] = []
        head = b""
        for name, data in (("data.pkl", tensor_pickle(dtype, shape)), ("byteorder", b"little")):
            record = _Record(name, len(head), len(data), zlib.crc32(data))
            self._records.append(record)
            head += record.local() + data
        self._payload = _Record("data/0", len(head), payload, 0)
        self._records.append(self._payload)
        self.crc_at = len(head) + 14
        self.head = head + self._payload.local(align=True)
        self.payload = payload

    def tail(self, crc: int) -> bytes:
        """What follows the payload: the version record, the central directory and its end."""
        self._payload.crc = crc
        offset = len(self.head) + self.payload
        version = _Record("version", offset, 2, zlib.crc32(b"3\n"))
        out = version.local() + b"3\n"
        directory = b"".join(record.central() for record in (*self._records, version))
        count = len(self._records) + 1
        end = struct.pack("<HHHHIIH", 0, 0, count, count, len(directory), offset + len(out), 0)
        return out + directory + b"PK\x05\x06" + end

    @property
    def nbytes(self) -> int:
        return len(self.head) + self.payload + len(self.tail(0))
