# SPDX-License-Identifier: Apache-2.0
"""The tensors of a Hugging Face checkpoint as they are written out: FP8 as bfloat16, all others unchanged."""

from __future__ import annotations

import math
import os
from collections import OrderedDict
from collections.abc import Container, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recipe.weights import fp8, scales, zeros
from recipe.weights.errors import InterruptedJobError, WeightsError
from recipe.weights.hf_checkpoint import ITEM_BYTES, TensorEntry

SCALE_SUFFIX = "_scale_inv"
FP8 = "F8_E4M3"
# FP8 bytes read and dequantised at a time: the panel and its output stay in a core's second-level cache.
PANEL = 256 * 1024
_OPEN_FILES = 16
_SCALES_KEPT = 8


@dataclass(frozen=True, slots=True)
class Source:
    """One tensor to be read. `scale` is its scales, exactly where the tensor is FP8; they may be in another file."""

    entry: TensorEntry
    scale: TensorEntry | None = None

    @property
    def name(self) -> str:
        return self.entry.name

    @property
    def where(self) -> str:
        """file: tensor, for messages."""
        return self.entry.where

    @property
    def entries(self) -> tuple[TensorEntry, ...]:
        """The entries that are read for it."""
        return (self.entry,) if self.scale is None else (self.entry, self.scale)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.entry.shape

    @property
    def dtype(self) -> str:
        """safetensors' name of the dtype that comes out."""
        return "BF16" if self.scale is not None else self.entry.dtype

    @property
    def nbytes(self) -> int:
        """Bytes that come out."""
        return self.entry.nbytes * 2 if self.scale is not None else self.entry.nbytes

    @property
    def row_bytes(self) -> int:
        """Bytes that come out for one index of the first axis."""
        return math.prod(self.shape[1:]) * ITEM_BYTES[self.dtype]


def make_sources(tensors: Mapping[str, TensorEntry]) -> dict[str, Source]:
    """Pair FP8 tensors with their scales (`X.weight` with `X.weight_scale_inv`); the scales themselves are left out.

    Raises WeightsError for an FP8 tensor without scales, scales without an FP8 tensor, and scales of another dtype or
    shape than one number (`scales.DTYPES`) for every block of 128x128.
    """
    sources = {}
    for name, entry in tensors.items():
        if name.endswith(SCALE_SUFFIX):
            _check_scale(entry, tensors.get(name.removesuffix(SCALE_SUFFIX)))
        elif entry.dtype == FP8:
            scale = tensors.get(name + SCALE_SUFFIX)
            if scale is None:
                raise WeightsError(f"{entry.where} is FP8 and no shard holds its scales {name}{SCALE_SUFFIX}")
            sources[name] = Source(entry, scale)
        else:
            sources[name] = Source(entry)
    return sources


def _check_scale(scale: TensorEntry, tensor: TensorEntry | None) -> None:
    if tensor is None:
        raise WeightsError(f"{scale.where} are the scales of a tensor that no shard holds")
    if tensor.dtype != FP8:
        raise WeightsError(f"{scale.where} are scales of {tensor.where}, which is {tensor.dtype}, not {FP8}")
    if len(tensor.shape) != 2:
        raise WeightsError(f"{tensor.where} is FP8 {list(tensor.shape)}; block scales belong to matrices")
    expected = fp8.scale_shape(tensor.shape)
    if scale.shape != expected or scale.dtype not in scales.DTYPES:
        raise WeightsError(
            f"{scale.where} is {scale.dtype} {list(scale.shape)}; {list(tensor.shape)} in blocks of "
            f"{fp8.BLOCK}x{fp8.BLOCK} has {list(expected)} of {', '.join(scales.DTYPES)}"
        )


class Reader:
    """Reads sources; one for each worker thread. Keeps some files open and the scales of the last tensors.

    proven: files that are known to be what was published, in which zeros are right; it may grow meanwhile.
    checked: archives (file, first byte) whose checksums were found right, for those who read some.

    Every method raises WeightsError for a file that ends too early, NaN in it, or a tensor of zeros, and
    InterruptedJobError for a read error.
    """

    def __init__(self, proven: Container[object] = frozenset()) -> None:
        self._proven = proven
        self.checked: set[tuple[Path, int]] = set()
        self._alive: TensorEntry | None = None
        self._files: OrderedDict[Path, int] = OrderedDict()
        self._scales: OrderedDict[str, NDArray[np.float32]] = OrderedDict()
        self._panel = np.empty(PANEL, np.uint8)

    def read(self, source: Source, begin: int, into: memoryview) -> None:
        """Fill `into` with bytes [begin, begin + len(into)) of `source` as it is written out.

        For FP8, begin, the length and the address must be even: whole bfloat16 numbers.
        """
        if source.scale is None:
            self.read_raw(source.entry, begin, into)
            self._check_zeros(source.entry, into)
        else:
            self._read_fp8(source.entry, source.scale, begin, into)

    def read_rows(self, source: Source, first: int, count: int, into: memoryview) -> None:
        """Fill `into` with the `count` rows (indices of the first axis) from `first` on."""
        self.read(source, first * source.row_bytes, into[: count * source.row_bytes])

    def read_raw(self, entry: TensorEntry, begin: int, into: memoryview) -> None:
        """Fill `into` with bytes of the tensor as they stand in its file, from byte `begin` of the tensor on."""
        if begin + len(into) > entry.nbytes:
            raise ValueError(f"{entry.where}: bytes {begin} to {begin + len(into)} of {entry.nbytes}")
        try:
            handle = self._handle(entry.file)
            done = 0
            while done < len(into):
                got = os.preadv(handle, [into[done:]], entry.begin + begin + done)
                if not got:
                    raise WeightsError(
                        f"{entry.where} ended {len(into) - done} bytes too early; the file changed meanwhile"
                    )
                done += got
        except OSError as error:
            raise InterruptedJobError(f"{entry.where} cannot be read ({error.strerror})") from error

    def close(self) -> None:
        """Close the files."""
        while self._files:
            os.close(self._files.popitem()[1])

    def _handle(self, file: Path) -> int:
        if file in self._files:
            self._files.move_to_end(file)
            return self._files[file]
        while len(self._files) >= _OPEN_FILES:
            os.close(self._files.popitem(last=False)[1])
        handle = self._files[file] = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_SEQUENTIAL)
        return handle

    def _read_fp8(self, entry: TensorEntry, scale: TensorEntry, begin: int, into: memoryview) -> None:
        if begin % 2 or len(into) % 2:
            raise ValueError(f"{entry.where}: bytes {begin} to {begin + len(into)} cut a bfloat16 number")
        scales = self._scales_of(scale)
        out = np.frombuffer(into, np.uint16)
        first = begin // 2
        for at in range(0, out.size, PANEL):
            panel = self._panel[: min(PANEL, out.size - at)]
            self.read_raw(entry, first + at, memoryview(panel))
            self._check_zeros(entry, memoryview(panel))
            target = out[at : at + panel.size]
            if not fp8.dequantise(panel, first + at, entry.shape[1], scales, target):
                bad = int(np.flatnonzero((panel & 0x7F) == 0x7F)[0])
                row, column = divmod(first + at + bad, entry.shape[1])
                raise WeightsError(
                    f"{entry.where} has NaN (byte 0x{panel[bad]:02X}) at [{row}, {column}]; download the file again"
                )

    def _check_zeros(self, entry: TensorEntry, piece: memoryview) -> None:
        """Raise WeightsError where this piece of a tensor is zero, and the tensor too.

        Only what is zero is looked at twice: a matrix may have rows of zeros (a vocabulary that was rounded up).
        """
        if entry is self._alive or not zeros.suspicious(entry) or not zeros.all_zero(piece):
            return
        if entry.file not in self._proven:
            rest = np.empty(PANEL, np.uint8)
            for at in range(0, entry.nbytes, PANEL):
                part = memoryview(rest)[: min(PANEL, entry.nbytes - at)]
                self.read_raw(entry, at, part)
                if not zeros.all_zero(part):
                    break
            else:
                raise zeros.refusal(entry.where)
        self._alive = entry

    def _scales_of(self, entry: TensorEntry) -> NDArray[np.float32]:
        if entry.name not in self._scales:
            while len(self._scales) >= _SCALES_KEPT:
                self._scales.popitem(last=False)
            raw = bytearray(entry.nbytes)
            self.read_raw(entry, 0, memoryview(raw))
            values = scales.to_float32(raw, entry.dtype).reshape(entry.shape)
            good = np.isfinite(values) & (values > 0)
            if not good.all():
                row, column = (int(n) for n in np.argwhere(~good)[0])
                raise WeightsError(
                    f"{entry.where} has {values[row, column]} at [{row}, {column}]; scales are finite and above zero"
                )
            self._scales[entry.name] = values
        return self._scales[entry.name]
