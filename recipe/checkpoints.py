# SPDX-License-Identifier: Apache-2.0
"""Which checkpoints of a run are whole: those whose manifest, written last of all, agrees with the files on the disk.

`global_step_N/checkpoint.json` lists every file of the directory with size and SHA-256. Neither verl's
latest_checkpointed_iteration.txt nor the presence of any file is believed: both say only what was tried. Standard
library only, as the workers of a run import it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recipe.files import sync_directory, unfinished, write_atomically

MANIFEST = "checkpoint.json"
# This file is in a checkpoint's directory from before its first file until its manifest is written. A directory that
# has it and no manifest was cut short; one that has neither is a damaged checkpoint.
UNFINISHED = "checkpoint.unfinished"
# The file in which verl notes the last step that it saved.
TRACKER = "latest_checkpointed_iteration.txt"
VERSION = 1
# Bytes read at a time: many enough to make calls cheap, few enough for the memory of many threads.
_PIECE = 8 * 2**20
_NAME = re.compile(r"global_step_(0|[1-9][0-9]{0,15})")


class NotWhole(Exception):
    """Raised with what a checkpoint lacks, in a few words."""


@dataclass(frozen=True)
class FileSum:
    """Size and SHA-256 (hexadecimal) of a file.

    SHA-256, because `sha256sum` checks it without this program, and hashlib computes it with the processor's own
    instructions: 1.7 GB/s of one core, without holding the interpreter's lock, where a disk is the slower.
    """

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint consists of, and of which run.

    `files`: by path relative to the checkpoint, with "/" between its parts. `run`: the run's settings by its
    command.json: "config", and "accepted", the keys changed at a resume; empty where they are not known.
    """

    step: int
    files: Mapping[str, FileSum]
    run: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Checkpoint:
    """One `global_step_N` directory. `problem` None: it is whole, and has a manifest."""

    path: Path
    step: int
    manifest: Manifest | None
    problem: str | None
    unfinished: bool

    @property
    def whole(self) -> bool:
        return self.problem is None


def step_of(name: str) -> int | None:
    """The step of a checkpoint directory by its name; None for any other name."""
    match = _NAME.fullmatch(name)
    return int(match[1]) if match else None


def look(directory: Path) -> list[Checkpoint]:
    """All checkpoints of a run, whole or not, by step; a directory that is not there has none.

    Raises:
        OSError: a file cannot be examined, which does not mean that it is missing.
    """
    if not directory.is_dir():
        return []
    steps = {step: path for path in directory.iterdir() if (step := step_of(path.name)) is not None and path.is_dir()}
    return [_look_at(path, step) for step, path in sorted(steps.items())]


def last_whole(directory: Path, step: int) -> Path | None:
    """The last whole checkpoint in a directory that is not of a later step than `step`."""
    paths = [checkpoint.path for checkpoint in look(directory) if checkpoint.whole and checkpoint.step <= step]
    return paths[-1] if paths else None


def good_text(checkpoint: Path | None) -> str:
    """The last checkpoint that is known to be good, in words for messages."""
    if checkpoint is None:
        return "no saved checkpoint is known to be good"
    return f"the last good checkpoint is {checkpoint} (--from-step {step_of(checkpoint.name)} goes on from it)"


def _look_at(path: Path, step: int) -> Checkpoint:
    try:
        manifest = read_manifest(path)
    except NotWhole as problem:
        absent = not (path / MANIFEST).exists()
        return Checkpoint(path, step, None, str(problem), absent and (path / UNFINISHED).exists())
    problem_text = _size_problem(path, manifest)
    if manifest.step != step:
        problem_text = f"its {MANIFEST} is of step {manifest.step}"
    return Checkpoint(path, step, manifest, problem_text, False)


def _size_problem(path: Path, manifest: Manifest) -> str | None:
    for name, wanted in manifest.files.items():
        try:
            size = (path / name).stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return f"{name} is missing"
        if size != wanted.bytes:
            return f"{name} has {size} bytes, expected {wanted.bytes}"
    return None


def list_files(checkpoint: Path) -> dict[str, int]:
    """Sizes in bytes of the files that a manifest lists, by their names in it, in order.

    Raises:
        NotWhole: something that is no plain file.
    """
    sizes: dict[str, int] = {}
    for directory, _, names in os.walk(checkpoint):
        for name in names:
            path = Path(directory, name)
            relative = path.relative_to(checkpoint).as_posix()
            if relative in (MANIFEST, UNFINISHED) or relative == unfinished(Path(MANIFEST)).name:
                continue
            if path.is_symlink() or not path.is_file():
                raise NotWhole(f"{relative} is no plain file")
            sizes[relative] = path.stat().st_size
    return dict(sorted(sizes.items()))


def sum_files(
    checkpoint: Path,
    names: Collection[str],
    threads: int,
    read: Callable[[int], None] = lambda count: None,
    sync: bool = False,
) -> dict[str, FileSum]:
    """Sizes and checksums of files of a checkpoint, by name.

    Args:
        checkpoint: the directory.
        names: of the files, as in a manifest.
        threads: how many files are read at a time.
        read: takes the bytes of every piece that was read; called by several threads.
        sync: bring each file to the disk first.

    Raises:
        OSError: a file cannot be read.
    """
    with ThreadPoolExecutor(max(1, threads)) as pool:
        sums = pool.map(lambda name: _sum_file(checkpoint / name, read, sync), names)
        return dict(zip(names, sums, strict=True))


def _sum_file(path: Path, read: Callable[[int], None], sync: bool) -> FileSum:
    digest, size = hashlib.sha256(), 0
    with open(path, "rb", buffering=0) as file:
        if sync:
            os.fsync(file.fileno())
        while piece := file.read(_PIECE):
            digest.update(piece)
            size += len(piece)
            read(len(piece))
    return FileSum(size, digest.hexdigest())


def write_manifest(checkpoint: Path, manifest: Manifest) -> None:
    """Declare a checkpoint whole: its directories and then the manifest are on the disk when this returns."""
    for directory, _, _ in os.walk(checkpoint):
        sync_directory(Path(directory))
    value = {
        "version": VERSION,
        "step": manifest.step,
        "written": time.time(),
        "files": {
            name: {"bytes": file_sum.bytes, "sha256": file_sum.sha256} for name, file_sum in manifest.files.items()
        },
        "run": manifest.run,
    }
    write_atomically(checkpoint / MANIFEST, json.dumps(value, indent=1) + "\n")
    (checkpoint / UNFINISHED).unlink(missing_ok=True)
    sync_directory(checkpoint.parent)


def read_manifest(checkpoint: Path) -> Manifest:
    """The manifest of a checkpoint.

    Raises:
        NotWhole: there is none, it is not one of ours, or it is cut short.
        OSError: it cannot be read.
    """
    try:
        text = (checkpoint / MANIFEST).read_text(encoding="utf-8")
    except FileNotFoundError:
        cut_short = (checkpoint / UNFINISHED).exists()
        raise NotWhole("it was not written to its end" if cut_short else f"it has no {MANIFEST}") from None
    except UnicodeDecodeError:
        raise NotWhole(f"its {MANIFEST} is not UTF-8") from None
    try:
        value = json.loads(text)
        if not text.endswith("\n") or value["version"] != VERSION:
            raise ValueError
        run = value["run"]
        files = {name: FileSum(_size(entry["bytes"]), str(entry["sha256"])) for name, entry in value["files"].items()}
        if not isinstance(run, dict) or not files or not all(map(_inside, files)):
            raise ValueError
        return Manifest(_size(value["step"]), files, run)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise NotWhole(f"its {MANIFEST} is torn, or of another kind") from None


def _size(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError
    return value


def _inside(name: str) -> bool:
    return not name.startswith("/") and ".." not in name.split("/")
