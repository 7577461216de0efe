# SPDX-License-Identifier: Apache-2.0
"""SHA-256 sums that somebody gave for the files of a checkpoint, and whether the files have them.

They come from a file of the user's, as `sha256sum` writes it; or from what the hub's own client leaves: a folder
`.cache/huggingface/download` with `NAME.metadata` for each file, whose second line is the file's SHA-256 (or, for a
small file that Git holds, the SHA-1 of Git's blob); or from the hub's cache, where a file is a link to a blob with that
name. What ModelScope's client leaves (`.msc`, `.mdl`) are pickles; they are not read.

A file is hashed before the first tensor of it is read, by the worker that wants it, so that its pages are still in
memory when they are read.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path

from recipe.weights.errors import DamagedInputError, InterruptedJobError, WeightsError

_SHA256 = re.compile(r"[0-9a-f]{64}")
_SHA1 = re.compile(r"[0-9a-f]{40}")
_LINE = re.compile(r"([0-9A-Fa-f]{64}) [ *](.+)")
_HUB = Path(".cache", "huggingface", "download")
_PIECE = 2**20
# Of a file of sums, or of the hub's notes, whose lines are some 70 and 20 bytes.
_MOST_BYTES = 16 * 2**20


def read_sums(file: Path, directory: Path) -> dict[Path, str]:
    """The sums of a file as `sha256sum` writes it, for the files of `directory` that it names, by their last name.

    Raises WeightsError for a file that is none, that names a file twice with different sums, or none that is there.
    """
    sums: dict[Path, str] = {}
    for number, line in enumerate(_text(file).splitlines(), 1):
        if not line.strip():
            continue
        match = _LINE.fullmatch(line)
        if not match:
            raise WeightsError(
                f"{file}: line {number} is not as sha256sum writes it: 64 hexadecimal digits, two blanks, a name"
            )
        path, digest = directory / Path(match[2]).name, match[1].lower()
        if sums.setdefault(path, digest) != digest:
            raise WeightsError(f"{file}: line {number} gives {path.name} a second sum")
    found = {path: digest for path, digest in sums.items() if path.is_file()}
    if not found:
        raise WeightsError(f"{file}: names no file of {directory}")
    return found


def hub_sums(files: Iterable[Path]) -> dict[Path, str]:
    """The digests that the hub's own client left beside these files: SHA-256, or SHA-1 of Git's blob.

    A file of the latter kind that is younger than the note was changed by its user, who may.
    """
    sums = {}
    for file in files:
        note = file.parent / _HUB / f"{file.name}.metadata"
        digest = ""
        if note.is_file():
            _, digest, written, *_ = [*(line.strip() for line in _text(note).splitlines()), "", "", ""]
            digest = digest.strip('"')
            if _SHA1.fullmatch(digest) and not _not_younger(file, written):
                digest = ""
        elif file.is_symlink() and (target := file.resolve()).parent.name == "blobs":
            digest = target.name
        if _SHA256.fullmatch(digest) or _SHA1.fullmatch(digest):
            sums[file] = digest
    return sums


def _not_younger(file: Path, written: str) -> bool:
    """Whether the file was last changed before the note was written; `written` in seconds, to the second."""
    try:
        return file.stat().st_mtime <= float(written) + 1
    except ValueError:
        return False
    except OSError as error:
        raise WeightsError(f"{file}: cannot be read ({error.strerror})") from error


def _text(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            content = stream.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise WeightsError(f"{file}: more than {_MOST_BYTES} bytes; a file of sums is expected")
        return content.decode()
    except OSError as error:
        raise WeightsError(f"{file}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise WeightsError(f"{file}: is no text ({error.reason}); a file of sums is expected") from error


class Sums:
    """The sums of some files, each compared once, from any thread. A container of the files that were found right."""

    def __init__(self, expected: Mapping[Path, str]) -> None:
        self._expected = expected
        self._right: set[Path] = set()
        self._locks = {file: threading.Lock() for file in expected}

    def __contains__(self, file: object) -> bool:
        return file in self._right

    def __len__(self) -> int:
        return len(self._expected)

    def check(self, files: Iterable[Path] | None = None) -> None:
        """Hash these files, or all, that have a sum and were not hashed before.

        Raises DamagedInputError for one that has another sum, InterruptedJobError where it cannot be read.
        """
        for file in self._expected if files is None else files:
            if file in self._expected and file not in self._right:
                with self._locks[file]:
                    if file not in self._right:
                        self._compare(file)

    def _compare(self, file: Path) -> None:
        expected = self._expected[file]
        found = _digest(file, of_git=len(expected) == 40)
        if found != expected:
            kind = "Git's SHA-1" if len(expected) == 40 else "SHA-256"
            raise DamagedInputError(f"{file}: its {kind} is {found}, expected {expected}; download it again", file)
        self._right.add(file)


def _digest(file: Path, *, of_git: bool) -> str:
    """SHA-256 of the file, or the SHA-1 that Git names it by: of "blob", its size, a zero byte and its bytes."""
    piece = memoryview(bytearray(_PIECE))
    try:
        with file.open("rb", buffering=0) as stream:
            digest = hashlib.sha256()
            if of_git:
                digest = hashlib.sha1(b"blob %d\0" % os.fstat(stream.fileno()).st_size, usedforsecurity=False)
            while count := stream.readinto(piece):
                digest.update(piece[:count])
    except OSError as error:
        raise InterruptedJobError(f"{file}: cannot be read ({error.strerror})") from error
    return digest.hexdigest()
