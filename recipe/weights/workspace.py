# SPDX-License-Identifier: Apache-2.0
"""The state of an output directory: the finished files, the ledger that survives a kill, and the final move."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import threading
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from recipe.files import sync_directory
from recipe.weights.errors import InterruptedJobError, WeightsError
from recipe.weights.output import write_small

WORK = ".partial"
LEDGER = "ledger.jsonl"
MANIFEST = "weights_manifest.json"
_FORMAT = 1


@dataclass(frozen=True)
class Finished:
    """A file that is whole: its name in the output, size and CRC-32, and of what it was made (`Job.file_identity`)."""

    name: str
    nbytes: int
    crc32: int
    identity: str = ""


class Claim(Protocol):
    """What a workspace asks of a job."""

    @property
    def input(self) -> Path: ...
    @property
    def output(self) -> Path: ...
    @property
    def options(self) -> str: ...
    @property
    def identity(self) -> str: ...
    @property
    def file_identities(self) -> Mapping[str, str]: ...


@dataclass(frozen=True)
class Ledger:
    """The content of a ledger: the digests of the job's options and of all its input, finished files, and steps of
    publishing done."""

    options: str
    identity: str
    done: dict[str, Finished]
    steps: frozenset[str]

    def kept(self, job: Claim) -> dict[str, Finished] | None:
        """The finished files that the job would make as they are; None when the ledger is of another job.

        Another one is that with other options, with no file in common, or with other files while they are published.
        """
        if self.options != job.options:
            return None
        kept = {name: file for name, file in self.done.items() if job.file_identities.get(name) == file.identity}
        if (not kept and self.identity != job.identity) or ("publish" in self.steps and kept != self.done):
            return None
        return kept


def read_ledger(output: Path) -> Ledger | None:
    """The ledger of an unfinished job in this output directory, None when there is none."""
    try:
        lines = (output / WORK / LEDGER).read_text(encoding="utf-8").splitlines()
        header = json.loads(lines[0])
        options, identity = str(header["options"]), str(header["identity"])
    except (OSError, ValueError, LookupError, TypeError):
        return None
    done: dict[str, Finished] = {}
    steps: set[str] = set()
    for line in lines[1:]:
        try:
            record = json.loads(line)
        except ValueError:
            continue  # the line that was being written when the run was killed
        if "step" in record:
            steps.add(record["step"])
        elif "dropped" in record:
            done.pop(record["dropped"], None)
        else:
            done[record["name"]] = Finished(**record)
    complete = {name: file for name, file in done.items() if _is_whole(output, file, "cleared" in steps)}
    return Ledger(options, identity, complete, frozenset(steps))


def _is_whole(output: Path, file: Finished, publishing: bool) -> bool:
    places = [output / WORK / file.name] + ([output / file.name] if publishing else [])
    return any(place.is_file() and place.stat().st_size == file.nbytes for place in places)


def read_manifest(output: Path) -> dict[str, Any]:
    """The manifest of a complete output. Raises WeightsError when there is none or the output is not complete."""
    try:
        manifest = json.loads((output / MANIFEST).read_text(encoding="utf-8"))
        commit_point = str(manifest["files"][-1]["name"])
    except OSError as error:
        raise WeightsError(f"{output}: no complete output of these tools ({MANIFEST}: {error.strerror})") from error
    except (ValueError, LookupError, TypeError) as error:
        raise WeightsError(f"{output / MANIFEST}: cannot be understood ({error!r})") from error
    if not (output / commit_point).is_file():
        raise WeightsError(f"{output}: is not complete, {commit_point} is missing")
    assert isinstance(manifest, dict)
    return manifest


def listed_files(output: Path) -> list[tuple[str, int, int]]:
    """(name, bytes, CRC-32) of every file that the manifest of a complete output lists. Raises WeightsError."""
    try:
        files = [(str(r["name"]), int(r["bytes"]), int(r["crc32"])) for r in read_manifest(output)["files"]]
    except (LookupError, TypeError, ValueError) as error:
        raise WeightsError(f"{output / MANIFEST}: cannot be understood ({error!r})") from error
    return files


def write_manifest(output: Path, manifest: Mapping[str, Any]) -> None:
    """Replace the manifest of a complete output. Raises InterruptedJobError."""
    temporary = output / f"{MANIFEST}.tmp"
    write_small(temporary, json.dumps(manifest, indent=1).encode() + b"\n")
    temporary.rename(output / MANIFEST)
    sync_directory(output)


def is_complete(output: Path) -> bool:
    """Whether a complete output stands here and no job is under way."""
    return (output / MANIFEST).is_file() and read_ledger(output) is None


def check_output(job: Claim, overwrite: bool) -> bool:
    """Whether this output is there already, made by the very same job; changes nothing.

    Raises WeightsError when the output lies in or around the input, or holds what must not be replaced.
    """
    output = job.output
    inside, outside = job.input.resolve(), output.resolve()
    if outside == inside or inside in outside.parents or outside in inside.parents:
        raise WeightsError(f"{output}: the output must lie beside the input {job.input}, not in or around it")
    if not output.exists():
        return False
    if not output.is_dir():
        raise WeightsError(f"{output}: is a file; the output is a directory")
    ledger = read_ledger(output)
    ours = ledger is not None and ledger.kept(job) is not None
    if ledger and not ours and not overwrite:
        raise WeightsError(
            f"{output}: holds an unfinished job over other input or options; finish that one, or --overwrite to drop it"
        )
    if ours or not {path.name for path in output.iterdir()} - {WORK}:
        return False
    if not (output / MANIFEST).is_file():
        raise WeightsError(
            f"{output}: is not empty and has no {MANIFEST} of these tools; choose another, or empty it yourself"
        )
    if overwrite:
        return False
    if read_manifest(output)["identity"] != job.identity:
        raise WeightsError(
            f"{output}: was made from other input or options; --verify tells whether it is the same all the same, "
            "--overwrite replaces it, or choose another directory"
        )
    return True


def free_bytes(output: Path) -> int:
    """Free space of the disk that the output is on, or will be."""
    place = output.resolve()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


class Workspace:
    """The output directory of one job, locked against a second one; a context manager.

    The ledger's first line names the job by its digests; each further line is a file that is whole in OUT/.partial,
    one that no longer counts as whole, or a step of publishing: "publish" (all files are there), then "cleared" (an
    older output is gone), after which files are moved into OUT, the commit point last.
    """

    def __init__(self, job: Claim) -> None:
        self.output = job.output
        self.work = job.output / WORK
        self.complete = False
        self._job = job
        self._created = not job.output.exists()
        self._mutex = threading.Lock()
        self._done: dict[str, Finished] = {}
        self._small: list[str] = []
        self._steps: set[str] = set()
        self.work.mkdir(parents=True, exist_ok=True)
        self._stream = (self.work / LEDGER).open("a", encoding="utf-8")

    @classmethod
    def open(cls, job: Claim, *, overwrite: bool) -> Workspace:
        """Take the directory for this job, new or where an earlier run stopped; `complete` when there is nothing to do.

        Raises WeightsError as `check_output` does, and when another process is writing the output.
        """
        complete = check_output(job, overwrite)
        try:
            self = cls(job)
        except OSError as error:
            raise InterruptedJobError(f"{job.output}: cannot be made ({error.strerror})") from error
        try:
            fcntl.flock(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._stream.close()
            raise WeightsError(f"{job.output}: another process is writing it; wait for it or stop it") from error
        except OSError:
            pass  # a file system without locks
        try:
            if complete:
                self.complete = True
                self._remove_work()
            else:
                self._load()
        except BaseException:
            self._stream.close()
            raise
        return self

    def _load(self) -> None:
        ledger = read_ledger(self.output)
        kept = ledger.kept(self._job) if ledger else None
        if ledger and kept is not None:
            self._done, self._steps = kept, set(ledger.steps)
            # A line that a kill cut short must not swallow the next one.
            self._stream.write("\n")
            for name in ledger.done.keys() - kept.keys():
                self._give_up(name)
            return
        for path in self.work.iterdir():
            if path.name != LEDGER:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        self._stream.truncate(0)
        self._log({"options": self._job.options, "identity": self._job.identity})

    def __enter__(self) -> Workspace:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            if kind is not None and not self._done:
                self.discard()
        finally:
            self._stream.close()

    def has(self, name: str) -> bool:
        """Whether this file is whole already."""
        return name in self._done

    def check_space(self, needed: int) -> None:
        """Raises InterruptedJobError when the disk cannot hold `needed` more bytes."""
        free = free_bytes(self.output)
        if free < needed:
            raise InterruptedJobError(f"{self.output}: needs {needed} bytes of disk, {free} are free; make room")

    def temporary(self, name: str) -> Path:
        """Where a file is written before it is whole."""
        path = self.work / f"{name}.tmp"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def add(self, file: Finished) -> None:
        """A file at its temporary name is whole and on disk. From any thread."""
        path = self.work / file.name
        self.temporary(file.name).rename(path)
        sync_directory(path.parent)
        with self._mutex:
            self._log(asdict(file))
            self._done[file.name] = file

    def drop(self, names: Iterable[str]) -> None:
        """Take files that were whole for so no longer: what they were made of is worth nothing."""
        for name in names:
            if self._done.pop(name, None):
                self._give_up(name)

    def _give_up(self, name: str) -> None:
        self._log({"dropped": name})
        (self.work / name).unlink(missing_ok=True)

    def add_small(self, name: str, content: bytes) -> None:
        """Write a small file."""
        write_small(self.temporary(name), content)
        self.temporary(name).rename(self.work / name)
        self._done[name] = Finished(name, len(content), zlib.crc32(content))
        self._small.append(name)

    def publish(self, tool: str) -> None:
        """Move everything into the output, the small file that was added last at the end; then nothing is left to do.

        Raises OSError when the file system refuses; a rerun goes on.
        """
        *small, commit_point = self._small
        large = sorted(name for name in self._done if name not in self._small)
        records = [
            {"name": f.name, "bytes": f.nbytes, "crc32": f.crc32}
            for f in (self._done[name] for name in (*large, *small, commit_point))
        ]
        manifest = {"format": _FORMAT, "tool": tool, "identity": self._job.identity, "files": records}
        write_small(self.work / MANIFEST, json.dumps(manifest, indent=1).encode() + b"\n")
        self._step("publish")
        if "cleared" not in self._steps:
            self._clear_older()
            self._step("cleared")
        for name in (*large, *small, MANIFEST):
            self._move(name)
        for directory in {(self.output / name).parent for name in (*large, *small, MANIFEST)}:
            sync_directory(directory)
        self._move(commit_point)
        sync_directory((self.output / commit_point).parent)
        self._remove_work()

    def discard(self) -> None:
        """Leave nothing of this job behind."""
        self._remove_work()
        if self._created and self.output.is_dir() and not any(self.output.iterdir()):
            self.output.rmdir()

    def _remove_work(self) -> None:
        """Remove OUT/.partial, the ledger last: while it stands, a rerun knows what is done."""
        for path in self.work.iterdir() if self.work.is_dir() else ():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
        shutil.rmtree(self.work, ignore_errors=True)

    def _log(self, record: dict[str, Any]) -> None:
        self._stream.write(json.dumps(record) + "\n")
        self._stream.flush()
        os.fsync(self._stream.fileno())

    def _step(self, step: str) -> None:
        if step not in self._steps:
            self._log({"step": step})
            self._steps.add(step)

    def _move(self, name: str) -> None:
        source, target = self.work / name, self.output / name
        if source.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            source.rename(target)

    def _clear_older(self) -> None:
        """Remove the files of an older output by its manifest, its commit point first, its manifest last."""
        file = self.output / MANIFEST
        if not file.exists():
            return
        names = [str(record["name"]) for record in json.loads(file.read_text(encoding="utf-8"))["files"]]
        for name in (*reversed(names), MANIFEST):
            path = self.output / name
            if self.output.resolve() in path.resolve().parents and path.is_file():
                path.unlink()
                sync_directory(path.parent)
                with contextlib.suppress(OSError):
                    for folder in path.parents:
                        folder.rmdir()  # up to the first that is not empty
