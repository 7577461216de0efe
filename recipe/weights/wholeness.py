# SPDX-License-Identifier: Apache-2.0
"""Whether a file is what it is named, or what an interrupted download leaves in its place.

A downloader gives a file its full length before it has its bytes, keeps a note beside it while it works, or leaves a
few lines of text where a large file should be. Each of them has the right name, and some the right size.
"""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from recipe.weights.errors import WeightsError

#: What a file may begin with that a version control system or a web server gave in place of its content.
_INSTEAD = (
    (b"version https://git-lfs.github.com/spec", "a Git LFS pointer"),
    (b"# xet version", "a Xet pointer"),
    (b"<!doctype html", "a web page"),
    (b"<html", "a web page"),
    (b"<?xml", "an answer of a web server"),
)
#: Bytes of the beginning of a file that tell a pointer.
HEAD_BYTES = 64
#: Endings that downloaders (aria2; the hubs' clients; wget, curl, browsers) give to what is not finished.
UNFINISHED = (".aria2", ".incomplete", ".part", ".partial", ".crdownload")
_NUMBERED = re.compile(r"(.*)-(\d{1,9})-of-(\d{1,9})(\D*)", re.ASCII)


def check_head(file: Path, head: bytes) -> None:
    """Raise WeightsError where `head`, the first bytes of a file, is that of a pointer or a web page."""
    begin = head[:HEAD_BYTES].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for prefix, what in _INSTEAD:
        if begin.startswith(prefix):
            raise WeightsError(f"{file}: is {what}, not the file itself; download the file (git lfs pull, hub client)")


def check_file_head(file: Path) -> None:
    """`check_head` of a file that is there. Raises WeightsError for one that cannot be read, too."""
    try:
        with file.open("rb") as stream:
            head = stream.read(HEAD_BYTES)
    except OSError as error:
        raise WeightsError(f"{file}: cannot be read ({error.strerror}); is it there?") from error
    check_head(file, head)


def first_hole(file: Path, begin: int, end: int) -> int | None:
    """The first byte of [begin, end) that was never written, None where all were, or where the file system cannot tell.

    Raises WeightsError where the file cannot be read.
    """
    try:
        handle = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        try:
            hole = os.lseek(handle, begin, os.SEEK_HOLE) if begin < end else end
        finally:
            os.close(handle)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.ENXIO):
            return None
        raise WeightsError(f"{file}: cannot be read ({error.strerror})") from error
    # Every file system has a hole after the last byte.
    return hole if hole < end else None


def check_unfinished(directory: Path, used: Callable[[str], bool]) -> None:
    """Raise WeightsError where a downloader's note says that a file is not finished which is `used`, by its name.

    The notes lie beside the file; those of the hub's own client in a folder of its own, where all of them count, as
    their names are digests.
    """
    hub = directory / ".cache" / "huggingface" / "download"
    for folder in (directory, hub):
        try:
            listed = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
        except OSError as error:
            raise WeightsError(f"{folder}: cannot be read ({error.strerror})") from error
        for name in listed:
            suffix = next((suffix for suffix in UNFINISHED if name.endswith(suffix)), None)
            if suffix is not None and (folder == hub or used(name.removesuffix(suffix))):
                raise WeightsError(
                    f"{folder / name}: a download is not finished; finish it, or remove this file if it is a leftover"
                )


def check_numbers(directory: Path, names: Iterable[str]) -> None:
    """Raise WeightsError where files that count themselves (`model-00002-of-00005.safetensors`) are not all there."""
    families: dict[tuple[str, str, str], set[int]] = {}
    examples: dict[tuple[str, str, str], str] = {}
    for name in names:
        match = _NUMBERED.fullmatch(name)
        if match:
            prefix, number, count, ending = match.groups()
            families.setdefault((prefix, count, ending), set()).add(int(number))
            examples[prefix, count, ending] = name
    for family, numbers in families.items():
        count = int(family[1])
        first = 0 if 0 in numbers else 1
        last, example = first + count - 1, examples[family]
        if max(numbers) > last:
            raise WeightsError(f"{directory}: {example} and others count from {first} to {max(numbers)}, beyond {last}")
        if len(numbers) < count:
            # Not a range over `count`, which is a file's word.
            missing = next(number for number in range(first, first + len(numbers) + 1) if number not in numbers)
            raise WeightsError(
                f"{directory}: {len(numbers)} of the {count} files of which {example} is one; number {missing} is "
                "missing; download it"
            )


def check_text(file: Path, content: bytes) -> None:
    """Raise WeightsError where a small file beside the weights is empty, a pointer, or JSON that was cut or has zeros
    in it; `content` is all of it."""
    check_head(file, content[:HEAD_BYTES])
    if file.suffix != ".json":
        return
    text = content.strip()
    if not text:
        raise WeightsError(f"{file}: is empty; download it again")
    if b"\0" in text:
        raise WeightsError(f"{file}: has zero bytes in it (byte {content.index(0)}); download it again")
    if (text[:1], text[-1:]) not in ((b"{", b"}"), (b"[", b"]")):
        raise WeightsError(f"{file}: not valid JSON (it begins with {text[:1]!r} and ends with {text[-1:]!r})")


def read_json(file: Path, what: str) -> dict[str, Any]:
    """The object in a JSON file; raises WeightsError, which calls it `what`."""
    try:
        content = file.read_bytes()
    except OSError as error:
        raise WeightsError(f"{file}: no {what} ({error.strerror})") from error
    check_head(file, content[:HEAD_BYTES])
    try:
        found = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{file}: not valid JSON ({error})") from error
    if not isinstance(found, dict):
        raise WeightsError(f"{file}: expected a JSON object, found {type(found).__name__}")
    return found
