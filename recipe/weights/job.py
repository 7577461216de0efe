# SPDX-License-Identifier: Apache-2.0
"""A job: files made of parts, written by worker threads into OUT/.partial, moved into OUT when all are there.

A kill at any moment leaves one of three states: OUT/.partial with some whole files and a ledger that lists them (a
rerun goes on from there), OUT with files but without its commit point (a rerun finishes the move), or the whole output.
The commit point is the last file that appears, and no reader takes the directory for complete without it. Input that is
at fault stops a job as a kill does: what was made of other files stays, and the ledger knows of what it was made.

Workers are threads: reading, the kernel, the checksum and writing all let go of Python's lock, and one process means
one Python and one kernel in memory.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypedDict

from recipe.weights.errors import DamagedInputError, InterruptedJobError, WeightsError
from recipe.weights.hf_checkpoint import TensorEntry
from recipe.weights.inputs import Mark, Marks, check_unchanged
from recipe.weights.output import CompareDestination, FileDestination, Sink
from recipe.weights.source import Reader, Source
from recipe.weights.sums import Sums
from recipe.weights.workspace import Finished, Workspace, read_manifest, write_manifest

ReportBytes = Callable[[int], None]


class Part(Protocol):
    """A run of bytes of an output file."""

    @property
    def nbytes(self) -> int:
        """Its size, known before anything is read."""

    @property
    def label(self) -> str:
        """The name of its tensor, or what else it is, for the table by layers and the messages of `--verify`."""

    @property
    def reads(self) -> Sequence[TensorEntry]:
        """The tensors of the input that it is made of."""

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

    @property
    def reads(self) -> Sequence[TensorEntry]:
        return self.source.entries

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

    @property
    def reads(self) -> Sequence[TensorEntry]:
        return ()

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

    tool: its name, for the manifest. options, identity: of `digests`.
    files: the large files. finish: the small ones (name, content), asked for when the large ones are written; the last
    of them is the commit point. small_bytes: about how large they are together, for the disk that is needed.
    marks: of every file of the input, at the time of the plan. only_plan: why the job cannot be run, if it cannot.
    sums: of files of the input; a file is compared before any of its tensors is read.
    """

    tool: str
    input: Path
    output: Path
    options: str
    identity: str
    files: Sequence[OutputFile]
    finish: Callable[[], Iterable[tuple[str, bytes]]]
    marks: Marks
    small_bytes: int = 0
    only_plan: str = ""
    sums: Sums = field(default_factory=lambda: Sums({}))

    @property
    def nbytes(self) -> int:
        """Bytes of the large files."""
        return sum(file.nbytes for file in self.files)

    def file_identity(self, file: OutputFile) -> str:
        """A digest of what this file depends on: the options, and the form and the files of the tensors in it."""
        digest = hashlib.sha256(self.options.encode())
        files: dict[Path, None] = {}
        for part in file.parts:
            for entry in part.reads:
                files[entry.file] = None
                digest.update(_form(entry))
        for path in files:
            digest.update(_contents(path, self.marks[path]))
        return digest.hexdigest()

    @functools.cached_property
    def file_identities(self) -> dict[str, str]:
        """The identity of every large file, by its name."""
        return {file.name: self.file_identity(file) for file in self.files}


def _form(entry: TensorEntry) -> bytes:
    return f"{entry.name}|{entry.dtype}|{entry.shape}|{entry.file.name}|{entry.begin}\n".encode()


def _contents(file: Path, mark: Mark) -> bytes:
    return f"{file.name}|{mark.size}|{mark.mtime_ns}\n".encode()


class Digests(TypedDict):
    """Of a tool and its options, and of these and all input."""

    options: str
    identity: str


def digests(
    tool: str,
    options: Mapping[str, Any],
    tensors: Iterable[TensorEntry],
    marks: Marks,
    small: Iterable[tuple[str, bytes]] = (),
) -> Digests:
    """Digests of what the output depends on.

    The input is every tensor's place and form, the size and time of each file of tensors, and the small files (name,
    content) that are copied. The time of the last change stands for the contents, as in make: reading 673 GB to tell
    whether they changed would take longer than the job. The directory's own name does not count. options: whatever
    JSON can hold.
    """
    first = hashlib.sha256(json.dumps([tool, options], sort_keys=True).encode()).hexdigest()
    digest = hashlib.sha256(first.encode())
    files: set[Path] = set()
    for entry in sorted(tensors, key=lambda e: e.name):
        files.add(entry.file)
        digest.update(_form(entry))
    for file in sorted(files):
        digest.update(_contents(file, marks[file]))
    for name, content in small:
        digest.update(f"{name}|{hashlib.sha256(content).hexdigest()}\n".encode())
    return {"options": first, "identity": digest.hexdigest()}


def layer_of(label: str) -> int | None:
    """The layer a tensor of this name belongs to, None for those outside the layers."""
    match = re.search(r"(?:^|\.)layers\.(\d+)\.", label)
    return int(match[1]) if match else None


def run_job(
    job: Job, *, workers: int = 2, overwrite: bool = False, progress: ReportBytes = lambda nbytes: None
) -> bool:
    """Write the output, or go on with what a killed run left; returns False when it was there already.

    progress is called with numbers of bytes written, from any thread; files of an earlier run count at once.
    Raises WeightsError, or InterruptedJobError where it was the machine; whole files stay in either case, and a rerun
    goes on with those whose input is the same. Where there are none, nothing of the job is left.
    """
    if workers < 1:
        raise WeightsError(f"--workers {workers}: at least one is needed")
    if job.only_plan:
        raise WeightsError(job.only_plan)
    with Workspace.open(job, overwrite=overwrite) as work:
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
            _each(job, todo, workers, lambda file, worker: work.add(_write(job, file, work, worker, progress)))
            small = list(job.finish())
            # Of files that only whole files of an earlier run were made of, too.
            job.sums.check()
            check_unchanged(job.marks)
            for name, content in small:
                work.add_small(name, content)
            work.publish(job.tool)
        except InterruptedJobError:
            raise
        except WeightsError as error:
            kept = _keep_whole(job, work, error)
            if not kept:
                work.discard()
                raise
            raise WeightsError(
                f"{error}; {kept} of {len(job.files)} files are whole and kept: put the input right, and the same "
                "command goes on"
            ) from error
        except OSError as error:
            raise InterruptedJobError(f"{job.output}: {error}; the same command goes on from here") from error
    return True


def _keep_whole(job: Job, work: Workspace, error: WeightsError) -> int:
    """Give up the whole files that were made of a damaged one; returns how many are left."""
    if isinstance(error, DamagedInputError):
        work.drop(file.name for file in job.files if error.file in _files_of(file))
    return sum(work.has(file.name) for file in job.files)


def _files_of(file: OutputFile) -> dict[Path, None]:
    """The files of the input that it is made of, each once, in order."""
    return {entry.file: None for part in file.parts for entry in part.reads}


def verify_job(job: Job, *, workers: int = 2, progress: ReportBytes = lambda nbytes: None) -> None:
    """Make every byte of the output anew and compare; raises WeightsError for the first file that differs.

    An output that was made of other files than these, by their times, and is the same in every byte, counts as made of
    these from then on.
    """
    if job.only_plan:
        raise WeightsError(job.only_plan)
    manifest = read_manifest(job.output)
    expected = {file.name for file in job.files}
    listed = {record["name"]: record for record in manifest["files"]}
    if not expected <= set(listed):
        raise WeightsError(f"{job.output}: is of another plan: it lacks {min(expected - set(listed))}")
    small = list(job.finish())
    for name, content in small:
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

    _each(job, job.files, workers, compare)
    check_unchanged(job.marks)
    if manifest["identity"] != job.identity and expected | {name for name, _ in small} == set(listed):
        write_manifest(job.output, manifest | {"identity": job.identity})


class _Stopped(Exception):
    """Another worker failed."""


class _Worker:
    """The sink and the reader that one worker thread owns."""

    def __init__(self, sums: Sums, stop: threading.Event) -> None:
        self.sink = Sink()
        self.reader = Reader(sums)
        self._sums = sums
        self._stop = stop

    def emit(self, file: OutputFile, progress: ReportBytes) -> None:
        self._sums.check(_files_of(file) if len(self._sums) else ())
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


def _each(job: Job, files: Sequence[OutputFile], workers: int, action: Callable[[OutputFile, _Worker], None]) -> None:
    """Call `action` for all files, `workers` at a time; the first error stops the other workers and is raised."""
    stop = threading.Event()
    queue = iter(files)
    lock = threading.Lock()

    def work() -> None:
        worker = _Worker(job.sums, stop)
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


def _write(job: Job, file: OutputFile, work: Workspace, worker: _Worker, progress: ReportBytes) -> Finished:
    temporary = work.temporary(file.name)
    target = FileDestination(temporary)
    try:
        worker.sink.begin(target)
        worker.emit(file, progress)
        nbytes, crc = worker.sink.finish()
    finally:
        worker.sink.abandon()
        target.close()
    check_unchanged(job.marks, _files_of(file))
    return Finished(file.name, nbytes, crc, job.file_identity(file))


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
