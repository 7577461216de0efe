# SPDX-License-Identifier: Apache-2.0
"""Writes a plan as a Megatron `torch_dist` checkpoint: streamed, in worker processes, `.metadata` last.

The directory holds metadata.json (the format), common.pt (an empty dict), `__<n>_0.distcp` files of concatenated
torch.save archives, and `.metadata`, the pickled torch.distributed.checkpoint Metadata that says where each piece is.
Without `.metadata` nothing loads the directory, so writing it last makes an interrupted run look like one.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import shutil
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recipe.weights.errors import WeightsError
from recipe.weights.plan import Piece, Plan
from recipe.weights.torch_zip import tensor_archive

_BUFFER = 8 * 2**20
FORMAT = {
    "sharded_backend": "torch_dist",
    "sharded_backend_version": 1,
    "common_backend": "torch",
    "common_backend_version": 1,
}


@dataclass(frozen=True)
class Written:
    """Where an archive ended up: bytes [offset, offset + length) of the file."""

    file: str
    offset: int
    length: int


def file_name(number: int) -> str:
    return f"__{number}_0.distcp"


def _copy(piece: Piece, source: int, target: int, at: int, buffer: memoryview) -> int:
    """Write the piece's archive at position `at`; returns its length."""
    archive = tensor_archive(piece.dtype, piece.shape, piece.nbytes)
    os.pwrite(target, archive.head, at)
    done, crc, start = 0, 0, at + len(archive.head)
    while done < piece.nbytes:
        part = buffer[: min(len(buffer), piece.nbytes - done)]
        count = os.preadv(source, [part], piece.begin + done)
        if count == 0:
            raise WeightsError(f"{piece.source.where}: the file ended {piece.nbytes - done} bytes too early")
        part = part[:count]
        crc = zlib.crc32(part, crc)
        written = 0
        while written < count:
            written += os.pwrite(target, part[written:], start + done + written)
        done += count
    tail = archive.tail([crc])
    os.pwrite(target, tail, start + done)
    return len(archive.head) + done + len(tail)


def write_file(directory: Path, number: int, pieces: tuple[Piece, ...]) -> list[Written]:
    """Write one .distcp file and flush it to disk; the result has one entry for each piece, in order."""
    name = file_name(number)
    buffer = memoryview(bytearray(_BUFFER))
    sources: dict[Path, int] = {}
    out: list[Written] = []
    target = os.open(directory / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        at = 0
        for piece in pieces:
            if piece.source.file not in sources:
                sources[piece.source.file] = os.open(piece.source.file, os.O_RDONLY)
            length = _copy(piece, sources[piece.source.file], target, at, buffer)
            out.append(Written(name, at, length))
            at += length
        os.fsync(target)
    finally:
        os.close(target)
        for descriptor in sources.values():
            os.close(descriptor)
    return out


def _write_all(
    directory: Path, plan: Plan, workers: int, progress: Callable[[int], None]
) -> Iterator[tuple[int, list[Written]]]:
    def size(number: int) -> int:
        return sum(piece.nbytes for piece in plan.files[number])

    if workers == 1 or len(plan.files) == 1:
        for number, pieces in enumerate(plan.files):
            yield number, write_file(directory, number, pieces)
            progress(size(number))
        return
    # A fresh interpreter for each worker: forking would copy torch's threads and memory.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(plan.files)), mp_context=context) as pool:
        running = {pool.submit(write_file, directory, n, pieces): n for n, pieces in enumerate(plan.files)}
        try:
            for future in as_completed(running):
                yield running[future], future.result()
                progress(size(running[future]))
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _metadata(plan: Plan, written: list[list[Written]], empty: Written) -> Any:
    """The torch Metadata of the checkpoint; every extra state is the one archive `empty`."""
    import torch
    from torch.distributed.checkpoint.filesystem import _StorageInfo
    from torch.distributed.checkpoint.metadata import (
        BytesStorageMetadata,
        ChunkStorageMetadata,
        Metadata,
        MetadataIndex,
        TensorProperties,
        TensorStorageMetadata,
    )

    dtypes = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
    tensors: dict[str, Any] = {
        name: TensorStorageMetadata(TensorProperties(dtype=dtypes[plan.dtypes[name]]), torch.Size(shape), [])
        for name, shape in plan.shapes.items()
    }
    storage: dict[Any, Any] = {}
    for pieces, places in zip(plan.files, written, strict=True):
        for piece, place in zip(pieces, places, strict=True):
            info = _StorageInfo(place.file, place.offset, place.length)
            offsets = torch.Size(piece.offsets)
            for name in piece.names:
                chunks = tensors[name].chunks
                storage[MetadataIndex(name, offsets, len(chunks))] = info
                chunks.append(ChunkStorageMetadata(offsets, torch.Size(piece.shape)))
    info = _StorageInfo(empty.file, empty.offset, empty.length)
    for name in plan.extra_states:
        tensors[name] = BytesStorageMetadata()
        storage[MetadataIndex(name)] = info
    metadata = Metadata(tensors, storage_data=storage)
    # Megatron-core reads it for flattened optimizer tensors only, but the attribute must be there.
    metadata.mcore_data = {name: {} for name in plan.shapes}
    return metadata


def _save_bytes(file: Path, content: bytes) -> None:
    with file.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def _torch_saved(value: Any) -> bytes:
    import io

    import torch

    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


def check_output(source: Path, output: Path, overwrite: bool) -> None:
    """Refuse an output that exists, or that lies inside the input or around it."""
    inside, outside = source.resolve(), output.resolve()
    if outside == inside or inside in outside.parents or outside in inside.parents:
        raise WeightsError(f"{output}: the output must lie beside the input {source}, not in or around it")
    if output.exists() and not overwrite:
        raise WeightsError(f"{output}: exists already; give another directory, or --overwrite to replace it")
    if output.exists() and any(output.iterdir()) and not (output / "metadata.json").is_file():
        raise WeightsError(
            f"{output}: is not a Megatron checkpoint, so --overwrite leaves it alone; remove it yourself"
        )


def check_space(output: Path, needed: int) -> None:
    """Refuse to start what the disk cannot hold."""
    place = output.resolve()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < needed:
        raise WeightsError(f"{output}: needs {needed} bytes of disk, {place} has {free} free; make room")


def bytes_needed(plan: Plan) -> int:
    """Disk the checkpoint takes: tensors, archive wrappers and about 300 bytes of metadata for each name."""
    pieces = [piece for file in plan.files for piece in file]
    wrappers = sum(tensor_archive(p.dtype, p.shape, p.nbytes).nbytes - p.nbytes for p in pieces)
    return plan.nbytes + wrappers + 300 * (plan.pieces + len(plan.extra_states)) + 8192


def write(plan: Plan, output: Path, workers: int = 1, progress: Callable[[int], None] = lambda nbytes: None) -> None:
    """Write the checkpoint to a temporary directory beside `output` and rename it into place.

    progress is called with the bytes of each file that is done. On any error the temporary directory is removed.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_name(f".{output.name}.partial-{os.getpid()}")
    partial.mkdir()
    try:
        written: list[list[Written]] = [[] for _ in plan.files]
        for number, places in _write_all(partial, plan, workers, progress):
            written[number] = places
        blob = _torch_saved([None])
        empty = Written("__extra_state_0.distcp", 0, len(blob))
        _save_bytes(partial / empty.file, blob)
        _save_bytes(partial / "common.pt", _torch_saved({}))
        _save_bytes(partial / "metadata.json", json.dumps(FORMAT).encode())
        _save_bytes(partial / ".metadata", pickle.dumps(_metadata(plan, written, empty)))
        if output.exists():
            shutil.rmtree(output)
        partial.rename(output)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
