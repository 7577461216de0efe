# SPDX-License-Identifier: Apache-2.0
"""The bytes around tensors that make them a `torch.save` archive, so that tensors can be streamed into one.

`torch.save` writes an uncompressed zip with the records data.pkl (a pickle that rebuilds the value around storages
"0", "1", …), byteorder, data/0, data/1, … (the storages' bytes) and version. `torch.load(weights_only=True)` reads
what is made here, mapped into memory too; no torch is needed to write it. The checksum of a storage follows its bytes
(as torch's own archives have it), so nothing is written twice. Zip structures: APPNOTE.TXT 4.3.7 (local header), 4.3.9
(data descriptor), 4.3.12 (central directory), 4.3.14 to 4.3.16 (ends), 4.5.3 (64-bit extension).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

from recipe.weights import torch_pickle

_ROOT = "archive"
_ALIGN = 64
# The value of a 32-bit field whose real value is in the 64-bit extension.
_LIMIT = 2**32 - 1
_MANY = 2**16 - 1
_STREAMED = 8  # general purpose bit 3: checksum and sizes follow the data


class _ZipEntry:
    """One file of the zip; size in bytes, crc None while it is unknown (it then follows the data)."""

    def __init__(self, name: str, offset: int, size: int, crc: int | None) -> None:
        self.name = f"{_ROOT}/{name}".encode()
        self.offset, self.size, self.crc = offset, size, crc
        self.flags = _STREAMED if crc is None else 0

    def _fields(self, crc: int, size: int, extra: bytes) -> bytes:
        # version needed, flags, stored, time 0, date 1980-01-01
        version = 45 if size == _LIMIT else 0
        return struct.pack("<HHHHHIIIHH", version, self.flags, 0, 0, 33, crc, size, size, len(self.name), len(extra))

    def local(self) -> bytes:
        """The header in front of the data, which starts at a multiple of _ALIGN when it is streamed."""
        if self.crc is not None:
            return b"PK\x03\x04" + self._fields(self.crc, self.size, b"") + self.name
        extra = struct.pack("<HHQQ", 1, 16, 0, 0) if self.size >= _LIMIT else b""
        pad = -(self.offset + 30 + len(self.name) + len(extra) + 4) % _ALIGN
        extra += b"FB" + struct.pack("<H", pad) + b"Z" * pad
        return b"PK\x03\x04" + self._fields(0, _LIMIT if self.size >= _LIMIT else 0, extra) + self.name + extra

    def descriptor(self, crc: int) -> bytes:
        """What follows streamed data."""
        return b"PK\x07\x08" + struct.pack("<IQQ" if self.size >= _LIMIT else "<III", crc, self.size, self.size)

    def central(self, crc: int) -> bytes:
        wide = [struct.pack("<QQ", self.size, self.size)] if self.size >= _LIMIT else []
        if self.offset >= _LIMIT:
            wide.append(struct.pack("<Q", self.offset))
        content = b"".join(wide)
        extra = struct.pack("<HH", 1, len(content)) + content if content else b""
        where = struct.pack("<HHHII", 0, 0, 0, 0, min(self.offset, _LIMIT))
        return (
            b"PK\x01\x02" + struct.pack("<H", 45) + self._fields(crc, min(self.size, _LIMIT), extra) + where
            + self.name + extra
        )  # fmt: skip


class Archive:
    """An archive with the given data.pkl around storages of the given sizes in bytes.

    In the file: `head`, storage 0, `between(0, crc of storage 0)`, storage 1, …, the last storage, `tail(all crcs)`.
    head counts as the only part before a tail where there are no storages. Every checksum is zlib's crc32.
    """

    def __init__(self, pickle: bytes, sizes: Sequence[int]) -> None:
        self._small: list[_ZipEntry] = []
        self.head = b""
        for name, data in (("data.pkl", pickle), ("byteorder", b"little")):
            record = _ZipEntry(name, len(self.head), len(data), zlib.crc32(data))
            self._small.append(record)
            self.head += record.local() + data
        self._storages: list[_ZipEntry] = []
        offset = len(self.head)
        for key, size in enumerate(sizes):
            record = _ZipEntry(f"data/{key}", offset, size, None)
            self._storages.append(record)
            offset += len(record.local()) + size + len(record.descriptor(0))
        self._after = offset
        if self._storages:
            self.head += self._storages[0].local()

    def between(self, key: int, crc: int) -> bytes:
        """What stands between storage `key` and the next."""
        return self._storages[key].descriptor(crc) + self._storages[key + 1].local()

    def tail(self, crcs: Sequence[int]) -> bytes:
        """What follows the last storage: the version record, the central directory and its end."""
        out = self._storages[-1].descriptor(crcs[-1]) if self._storages else b""
        version = _ZipEntry("version", self._after, 2, zlib.crc32(b"3\n"))
        out += version.local() + b"3\n"
        records = [(record, record.crc or 0) for record in (*self._small, version)]
        records[2:2] = zip(self._storages, crcs, strict=True)
        directory = b"".join(record.central(crc) for record, crc in records)
        at = self._after + len(version.local()) + 2
        return out + directory + _end(len(records), len(directory), at)

    @property
    def nbytes(self) -> int:
        last = len(self._storages[-1].descriptor(0)) if self._storages else 0
        return self._after - last + len(self.tail([0] * len(self._storages)))


def _end(count: int, size: int, at: int) -> bytes:
    """The end of a central directory of `count` records and `size` bytes at offset `at`."""
    wide = b""
    if count >= _MANY or size >= _LIMIT or at >= _LIMIT:
        wide = b"PK\x06\x06" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, count, count, size, at)
        wide += b"PK\x06\x07" + struct.pack("<IQI", 0, at + size, 1)
    short = min(count, _MANY)
    return wide + b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, short, short, min(size, _LIMIT), min(at, _LIMIT), 0)


def tensor_archive(dtype: str, shape: Sequence[int], nbytes: int) -> Archive:
    """The archive of one contiguous tensor, its bytes being storage 0."""
    return Archive(torch_pickle.document(torch_pickle.tensor(dtype, shape, 0)), [nbytes])
