# SPDX-License-Identifier: Apache-2.0
"""Large files, written from front to back without the page cache, their checksums computed on the way.

A page-cache write costs more than everything else here: the kernel allocates and copies every page before the disk
sees it. So the bytes are gathered in aligned buffers and written with O_DIRECT (plain writes where a file system does
not have it), several buffers going out while one is filled.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Protocol

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

from recipe.weights.errors import InterruptedJobError

BUFFER_BYTES = 4 * 2**20
# One is filled while the others go out: a disk is faster with several writes in its queue.
_BUFFERS = 4
# O_DIRECT wants addresses, offsets and lengths in multiples of the disk's block.
_BLOCK = 4096
# Bytes asked of a reader at a time: the checksum then finds them in a core's cache.
_CHUNK = 512 * 1024


class Destination(Protocol):
    """Takes a sink's buffers, in order."""

    def put(self, data: memoryview, offset: int) -> None:
        """Take `data`, which begins at byte `offset` of the file; the buffer behind it is page aligned.

        Called from several threads at once, but for the last data of a file, which comes alone.
        """

    def finish(self, nbytes: int) -> None:
        """Called when all `nbytes` of the file have been put."""

    def close(self) -> None:
        """Close the file, finished or not."""


class FileDestination:
    """A new file at `path`, synced to disk by `finish`. Raises InterruptedJobError for a write that fails."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._mutex = threading.Lock()
        self._left: list[int] = []
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        try:
            self._handle = os.open(path, flags | os.O_DIRECT, 0o644)
            self._direct = True
        except OSError:
            self._handle = os.open(path, flags, 0o644)
            self._direct = False

    def put(self, data: memoryview, offset: int) -> None:
        # The last buffer of a file ends with part of a block, which only the page cache takes.
        aligned = len(data) - len(data) % _BLOCK if self._direct else len(data)
        try:
            self._write(data[:aligned], offset)
            if aligned < len(data):
                self._buffered()
                self._write(data[aligned:], offset + aligned)
        except OSError as error:
            raise self._failed(error) from error

    def finish(self, nbytes: int) -> None:
        try:
            os.fsync(self._handle)
        except OSError as error:
            raise self._failed(error) from error

    def close(self) -> None:
        for handle in (*self._left, self._handle):
            os.close(handle)

    def _write(self, data: memoryview, offset: int) -> None:
        done = 0
        while done < len(data):
            # In this order, as the plain handle accepts whatever the direct one does.
            direct, handle = self._direct, self._handle
            try:
                done += os.pwrite(handle, data[done:], offset + done)
            except OSError as error:
                if not direct or error.errno != errno.EINVAL:
                    raise
                # The file system accepts the flag but not the writes, or a write stopped within a block.
                self._buffered()

    def _buffered(self) -> None:
        """Go on through the page cache; other threads may still be writing by the handle that is left."""
        with self._mutex:
            if self._direct:
                self._left.append(self._handle)
                self._handle = os.open(self.path, os.O_WRONLY | os.O_CLOEXEC)
                self._direct = False

    def _failed(self, error: OSError) -> InterruptedJobError:
        return InterruptedJobError(f"{self.path} cannot be written ({error.strerror}); what is done so far is kept")


class CompareDestination:
    """An existing file that the bytes are compared with; `differs_at()` tells the first byte that differs."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._first: int | None = None
        self._buffer = np.empty(_CHUNK, np.uint8)
        self._mutex = threading.Lock()
        self._handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        os.posix_fadvise(self._handle, 0, 0, os.POSIX_FADV_DONTNEED)

    def put(self, data: memoryview, offset: int) -> None:
        with self._mutex:
            for at in range(0, len(data), _CHUNK):
                self._compare(np.frombuffer(data[at : at + _CHUNK], np.uint8), offset + at)

    def finish(self, nbytes: int) -> None:
        if os.fstat(self._handle).st_size > nbytes:
            self._note(nbytes)

    def close(self) -> None:
        os.close(self._handle)

    def differs_at(self) -> int | None:
        """The first byte of the file that is not what it should be, or None when all are; ask after `finish`."""
        return self._first

    def _compare(self, expected: NDArray[np.uint8], offset: int) -> None:
        stored = self._buffer[: expected.size]
        try:
            got = os.preadv(self._handle, [memoryview(stored)], offset)
        except OSError as error:
            raise InterruptedJobError(f"{self.path} cannot be read ({error.strerror})") from error
        if got < expected.size:
            stored[got:] = ~expected[got:]
        if not np.array_equal(stored, expected):
            self._note(offset + int(np.argmax(stored != expected)))

    def _note(self, at: int) -> None:
        self._first = at if self._first is None else min(self._first, at)


class Sink:
    """What the parts of a file are written into, one after the other; one for each worker, used for file after file.

    The buffers are the only memory: 4 * buffer_bytes. Offsets count from the beginning of the file.
    """

    def __init__(self, buffer_bytes: int = BUFFER_BYTES) -> None:
        if buffer_bytes % _BLOCK:
            raise ValueError(f"a buffer of {buffer_bytes} bytes; it must be a multiple of {_BLOCK}")
        self._views = [memoryview(mmap.mmap(-1, buffer_bytes)) for _ in range(_BUFFERS)]
        self._size = buffer_bytes
        self._pool = ThreadPoolExecutor(_BUFFERS - 1)
        self._pending: deque[Future[None]] = deque()

    def begin(self, target: Destination) -> None:
        """Start a file."""
        self._target = target
        self._base = 0
        self._filled = 0
        self._crc = 0
        self._turn = 0

    @property
    def position(self) -> int:
        """Bytes of the file so far."""
        return self._base + self._filled

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Append the bytes (contiguous); returns their CRC-32."""
        view = memoryview(data).cast("B") if len(data) else memoryview(b"")

        def take(at: int, into: memoryview) -> None:
            into[:] = view[at : at + len(into)]

        return self.fill(len(view), take)

    def fill(self, nbytes: int, read: Callable[[int, memoryview], None]) -> int:
        """Append `nbytes` made in place: `read(at, into)` must fill `into` with bytes [at, at + len(into)) of them.

        The pieces asked for come in order, are at most 512 KiB, and are of even length where `position` and `nbytes`
        are even. Returns the CRC-32 of the bytes.
        """
        crc = 0
        at = 0
        while at < nbytes:
            if self._filled == self._size:
                self._flush()
            count = min(nbytes - at, self._size - self._filled, _CHUNK)
            into = self._views[self._turn][self._filled : self._filled + count]
            read(at, into)
            crc = isal_zlib.crc32(into, crc)
            self._filled += count
            at += count
        self._crc = isal_zlib.crc32_combine(self._crc, crc, nbytes)
        return crc

    def finish(self) -> tuple[int, int]:
        """Bring the file to its end and to disk; returns (bytes, CRC-32 of the whole file)."""
        self._flush()
        self._wait()
        nbytes = self._base
        self._target.finish(nbytes)
        return nbytes, self._crc

    def abandon(self) -> None:
        """Stop in the middle of a file, so that its target can be closed."""
        with contextlib.suppress(Exception):
            self._wait()

    def close(self) -> None:
        """End the writing thread."""
        self._pool.shutdown()

    def _flush(self) -> None:
        """Send the buffer out and take a free one."""
        if not self._filled:
            return
        if self._filled < self._size:
            self._wait()
        data = self._views[self._turn][: self._filled]
        self._pending.append(self._pool.submit(self._target.put, data, self._base))
        self._base += self._filled
        self._filled = 0
        self._turn = (self._turn + 1) % _BUFFERS
        if len(self._pending) == _BUFFERS:
            self._pending.popleft().result()

    def _wait(self) -> None:
        """Wait until all buffers are written; raises the first error once no thread uses a buffer."""
        pending = list(self._pending)
        self._pending.clear()
        wait(pending)
        for future in pending:
            future.result()


def write_small(path: Path, content: bytes) -> None:
    """A small file, synced to disk. Raises InterruptedJobError."""
    try:
        with path.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        raise InterruptedJobError(f"{path} cannot be written ({error.strerror})") from error
