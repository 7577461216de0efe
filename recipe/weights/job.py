# SPDX-License-Identifier: Apache-2.0
"""A job: files made of parts, written by worker threads into OUT/.partial, moved into OUT when all are there.

A kill at any moment leaves one of three states: OUT/.partial with some whole files and a ledger that lists them (a
rerun goes on from there), OUT with files but without its commit point (a rerun finishes the move), or the whole output.
The commit point is the last file that appears, and no reader takes the directory for complete without it.

Workers are threads: reading, the kernel, the checksum and writing all let go of Python's lock, and one process means
one Python and one kernel in memory.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from recipe.weights.errors import InterruptedJobError, WeightsError
from recipe.weights.hf_checkpoint import TensorEntry
from recipe.weights.output import CompareDestination, FileDestination, Sink
from recipe.weights.source import Reader, Source
from recipe.weights.workspace import Finished, Workspace, read_manifest

ReportBytes = Callable[[int], None]


class Part(Protocol):
    """A run of bytes of an output file."""

    @property
    def nbytes(self) -> int:
        """Its size, known before anything is read."""

    @property
    def label(self) -> str:
        """The name of its tensor, or what else it is, for the table by layers and the messages of `--verify`."""

    def emit(self, sink: Sink, reader: Reader) -> None:
        """Write exactly `nbytes` bytes into the sink; the same ones every time."""


@dataclass(frozen=True, slots=True)
class Copy:
    """Bytes [begin, begin + nbytes) of a source as it is written out (`Source.row_bytes` is the size of a row)."""

    source: Source
    begin: int
    nbytes: int

    @property
    def label(self) -> str:
        return self.source.name

    def emit(self, sink: Sink, reader: Reader) -> None:
        sink.fill(self.nbytes, lambda at, into: reader.read(self.source, self.begin + at, into))


@dataclass(frozen=True, slots=True)
class Literal:
    """Bytes that are known: a header."""

    data: bytes
    label: str = "header"

    @property
    def nbytes(self) -> int:
        return len(self.data)

    def emit(self, sink: Sink, reader: Reader) -> None:
        sink.write(self.data)


@dataclass(frozen=True)
class OutputFile:
    """A file of the output; `name` is relative to the output directory and may lie in folders of it."""

    name: str
    parts: Sequence[Part]

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in self.parts)


@dataclass(frozen=True)
class Job:
    """What a tool does with its input.

    tool: its name, for the manifest. identity: `identity_of` the input and options.
    files: the large files. finish: the small ones (name, content), asked for when the large ones are written; the last
    of them is the commit point. small_bytes: about how large they are together, for the disk that is needed.
    """

    tool: str
    input: Path
    output: Path
    identity: str
    files: Sequence[OutputFile]
    finish: Callable[[], Iterable[tuple[str, bytes]]]
    small_bytes: int = 0

    @property
    def nbytes(self) -> int:
        """Bytes of the large files."""
        return sum(file.nbytes for file in self.files)


def identity_of(tool: str, tensors: Iterable[TensorEntry], options: dict[str, Any]) -> str:
    """A digest of what the output depends on: every tensor's place and form, each file's size and time, the options.

    The time of the last change stands for the contents, as in make: reading 673 GB to tell whether they changed would
    take longer than the job. The directory's own name does not count. options: whatever JSON can hold.
    """
    digest = hashlib.sha256(json.dumps([tool, options], sort_keys=True).encode())
    files: set[Path] = set()
    for entry in sorted(tensors, key=lambda e: e.name):
        files.add(entry.file)
        digest.update(f"{entry.name}|{entry.dtype}|{entry.shape}|{entry.file.name}|{entry.begin}\n".encode())
    for file in sorted(files):
        status = file.stat()
        digest.update(f"{file.name}|{status.st_size}|{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def layer_of(label: str) -> int | None:
    """The layer a tensor of this name belongs to, None for those outside the layers."""
    match = re.search(r"(?:^|\.)layers\.(\d+)\.", label)
    return int(match[1]) if match else None


def run_job(
    job: Job, *, workers: int = 2, overwrite: bool = False, progress: ReportBytes = lambda nbytes: None
) -> bool:
    """Write the output, or go on with what a killed run left; returns False when it was there already.

    progress is called with numbers of bytes written, from any thread; files of an earlier run count at once.
    Raises WeightsError, after which nothing of the job is left, or InterruptedJobError, after which a rerun resumes.
    """
    if workers < 1:
        raise WeightsError(f"--workers {workers}: at least one is needed")
    with Workspace.open(job.input, job.output, job.identity, overwrite=overwrite) as work:
        if work.complete:
            return False
        work.check_space(job.nbytes + job.small_bytes - sum(file.nbytes for file in job.files if work.has(file.name)))
        try:
            todo = []
            for file in job.files:
                if work.has(file.name):
                    progress(file.nbytes)
                else:
                    todo.append(file)
            _each(todo, workers, lambda file, worker: work.add(_write(file, work, worker, progress)))
            for name, content in job.finish():
                work.add_small(name, content)
            work.publish(job.tool)
        except InterruptedJobError:
            raise
        except WeightsError:
            work.discard()
            raise
        except OSError as error:
            raise InterruptedJobError(f"{job.output}: {error}; the same command goes on from here") from error
    return True


def verify_job(job: Job, *, workers: int = 2, progress: ReportBytes = lambda nbytes: None) -> None:
    """Make every byte of the output anew and compare; raises WeightsError for the first file that differs."""
    manifest = read_manifest(job.output)
    expected = {file.name for file in job.files}
    listed = {record["name"]: record for record in manifest["files"]}
    if not expected <= set(listed):
        raise WeightsError(f"{job.output}: is of another plan: it lacks {min(expected - set(listed))}")
    for name, content in job.finish():
        try:
            stored = (job.output / name).read_bytes()
        except OSError as error:
            raise WeightsError(f"{job.output / name}: cannot be read ({error.strerror})") from error
        if stored != content:
            raise WeightsError(f"{job.output / name}: differs from what the input gives")

    def compare(file: OutputFile, worker: _Worker) -> None:
        crc = _compare(file, job.output, worker, progress)
        if crc != listed[file.name]["crc32"]:
            raise WeightsError(f"{job.output}: the manifest's checksum of {file.name} is not that of the file")

    _each(job.files, workers, compare)


class _Stopped(Exception):
    """Another worker failed."""


class _Worker:
    """The sink and the reader that one worker thread owns."""

    def __init__(self, stop: threading.Event) -> None:
        self.sink = Sink()
        self.reader = Reader()
        self._stop = stop

    def emit(self, file: OutputFile, progress: ReportBytes) -> None:
        for part in file.parts:
            if self._stop.is_set():
                raise _Stopped
            before = self.sink.position
            part.emit(self.sink, self.reader)
            if self.sink.position - before != part.nbytes:
                raise AssertionError(
                    f"{file.name}: {part.label} wrote {self.sink.position - before} bytes, planned {part.nbytes}"
                )
            progress(part.nbytes)


def _each(files: Sequence[OutputFile], workers: int, action: Callable[[OutputFile, _Worker], None]) -> None:
    """Call `action` for all files, `workers` at a time; the first error stops the other workers and is raised."""
    stop = threading.Event()
    queue = iter(files)
    lock = threading.Lock()

    def work() -> None:
        worker = _Worker(stop)
        try:
            while not stop.is_set():
                with lock:
                    file = next(queue, None)
                if file is None:
                    return
                action(file, worker)
        finally:
            worker.sink.close()
            worker.reader.close()

    with ThreadPoolExecutor(max(1, min(workers, len(files)))) as pool:
        try:
            futures = [pool.submit(work) for _ in range(min(workers, len(files)))]
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            stop.set()
    errors = [error for future in futures if (error := future.exception()) and not isinstance(error, _Stopped)]
    if errors:
        raise errors[0]


def _write(file: OutputFile, work: Workspace, worker: _Worker, progress: ReportBytes) -> Finished:
    temporary = work.temporary(file.name)
    target = FileDestination(temporary)
    try:
        worker.sink.begin(target)
        worker.emit(file, progress)
        nbytes, crc = worker.sink.finish()
    finally:
        worker.sink.abandon()
        target.close()
    return Finished(file.name, nbytes, crc)


def _compare(file: OutputFile, output: Path, worker: _Worker, progress: ReportBytes) -> int:
    path = output / file.name
    try:
        target = CompareDestination(path)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror})") from error
    try:
        worker.sink.begin(target)
        worker.emit(file, progress)
        _, crc = worker.sink.finish()
    finally:
        worker.sink.abandon()
        target.close()
    at = target.differs_at()
    if at is not None:
        raise WeightsError(f"{path}: byte {at} ({_part_at(file, at)}) differs from what the input gives")
    return crc


def _part_at(file: OutputFile, at: int) -> str:
    for part in file.parts:
        if at < part.nbytes:
            return part.label
        at -= part.nbytes
    return "past its end"
