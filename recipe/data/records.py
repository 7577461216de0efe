# SPDX-License-Identifier: Apache-2.0
"""Streams the records of a file one by one: a JSON list, JSON lines, either gzipped, or Parquet.

The kind of a file is recognised by its first bytes, not by its name. Memory does not grow with the file: JSON is
decoded record by record, Parquet is read in batches of the wanted columns.
"""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

CHUNK = 1 << 20
# A longer one is a broken file (a quote that is never closed), and would be held in memory whole.
LARGEST_RECORD = 32 << 20
# Where the text was cut, the decoder complains at most this many characters before the cut ("-Infinit", "\\u12").
CUT_SLACK = 16
BLANK = " \t\n\r"
# First bytes of a Parquet file, and of a Git LFS pointer, which is there in the place of the file.
PARQUET = b"PAR1"
LFS_POINTER = b"version https://git-lfs"


class DataError(Exception):
    """The input cannot be used; the message is one line: where, what was found, what was expected."""


def read_records(path: Path, columns: Sequence[str] | None = None) -> Iterator[Any]:
    """The records of ``path`` in file order, as Python values.

    ``columns``: the only columns that a Parquet file is asked for (those of them that it has); None for all. JSON
    records come whole. Raises ``DataError``.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(len(LFS_POINTER))
            file.seek(0)
            if head == LFS_POINTER:
                raise DataError(
                    f"{path}: is a pointer of Git LFS, not the file it stands for; bring that: git lfs pull"
                )
            if head.startswith(PARQUET):
                yield from _parquet(file, path, columns)
            elif head.startswith(b"\x1f\x8b"):
                with gzip.open(file, "rb") as unpacked:
                    yield from _json(unpacked, path)
            else:
                yield from _json(file, path)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: damaged gzip file: {error}") from error
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or _first_line(error)}") from error


def column_names(path: Path) -> list[str]:
    """The columns of a Parquet file; none for a file of another kind, which is recognised without pyarrow."""
    with open(path, "rb") as file:
        if file.read(len(PARQUET)) != PARQUET:
            return []
    import pyarrow
    import pyarrow.parquet

    try:
        return list(pyarrow.parquet.read_schema(path).names)
    except (pyarrow.ArrowException, OSError):
        return []


def _parquet(file: BinaryIO, path: Path, columns: Sequence[str] | None) -> Iterator[Any]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.ParquetFile(file, pre_buffer=False)
        names = table.schema_arrow.names
        wanted = names if columns is None else [name for name in names if name in columns]
        # Without a wanted column every batch is empty, and the caller names the one that is missing.
        for batch in table.iter_batches(batch_size=1024, columns=wanted or names[:1]):
            yield from batch.to_pylist()
    except (pyarrow.ArrowException, ValueError) as error:  # ValueError: text that is not UTF-8
        raise DataError(f"{path}: damaged Parquet file: {_first_line(error)}") from error


def _json(file: Any, path: Path) -> Iterator[Any]:
    place = 0
    try:
        with io.TextIOWrapper(file, encoding="utf-8-sig", newline="\n") as text:
            head = text.read(CHUNK)
            while head and not head.strip(BLANK):
                head = text.read(CHUNK)
            start = head.lstrip(BLANK)[:1]
            if start not in ("[", "{"):
                beginning = f"it starts with {start!r}" if start else "it is empty"
                raise DataError(f"{path}: expected a JSON list of records, or one JSON object per line; {beginning}")
            for record in _list(head, text, path) if start == "[" else _lines(head, text, path):
                yield record
                place += 1
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: near record {place}: not a JSON file in UTF-8: {error.reason}") from error


def _list(head: str, text: io.TextIOBase, path: Path) -> Iterator[Any]:
    """The values of a JSON list; ``head`` is the text that was read already."""
    buffer, at, ended, place = head, head.index("[") + 1, False, 0
    comma = True  # whether a value may follow: after the bracket, and after every comma

    def more(size: int = CHUNK) -> None:
        nonlocal buffer, at, ended
        chunk = text.read(size)
        buffer, at, ended = buffer[at:] + chunk, 0, not chunk

    while True:
        while True:
            at = _skip(buffer, at)
            if at < len(buffer) or ended:
                break
            more()
        where = f"{path}: record {place}"
        if at == len(buffer):
            raise DataError(f"{path}: the list is not closed: the file ends after {place} records")
        if buffer[at] == "]" and (not comma or place == 0):
            at += 1
            break
        if not comma:
            if buffer[at] != ",":
                raise DataError(f"{path}: after record {place - 1}: expected ',' or ']', found {buffer[at]!r}")
            comma, at = True, at + 1
            continue
        while True:
            try:
                value, end = DECODER.raw_decode(buffer, at)
                # A number near the end of what was read may go on: "1.", "1e+".
                if buffer[end - 1] in '}]"' or end < len(buffer) - CUT_SLACK or ended:
                    break
            except json.JSONDecodeError as error:
                cut = error.msg.startswith("Unterminated string") or error.pos >= len(buffer) - CUT_SLACK
                if ended or not cut:
                    raise DataError(f"{where}: not valid JSON: {_json_error(error, buffer)}") from error
            except (ValueError, RecursionError) as error:
                raise DataError(f"{where}: not valid JSON: {_first_line(error)}") from error
            if len(buffer) - at > LARGEST_RECORD:
                raise DataError(f"{where}: has over {LARGEST_RECORD >> 20} million characters; a quote is not closed")
            # Doubled, so that a long record is not decoded from its start for every chunk.
            more(max(CHUNK, len(buffer) - at))
        yield value
        at, comma, place = end, False, place + 1
    while True:
        at = _skip(buffer, at)
        if at < len(buffer):
            raise DataError(f"{path}: text after the end of the list: {buffer[at : at + 20]!r}")
        if ended:
            return
        more()


def _lines(head: str, text: io.TextIOBase, path: Path) -> Iterator[Any]:
    """The values of JSON lines; blank lines are passed over and numbered."""
    number = place = 0
    rest, ended = head, False
    while not ended or rest:
        lines = rest.split("\n")
        rest = "" if ended else lines.pop()
        if len(rest) > LARGEST_RECORD:
            limit = f"over {LARGEST_RECORD >> 20} million characters"
            raise DataError(f"{path}: record {place}: line {number + 1} has {limit}")
        for line in lines:
            number += 1
            if not line.strip(BLANK):
                continue
            where = f"{path}: record {place} (line {number})"
            try:
                value = DECODER.decode(line)
            except json.JSONDecodeError as error:
                raise DataError(f"{where}: not one JSON object per line: {_json_error(error, line)}") from error
            except (ValueError, RecursionError) as error:
                raise DataError(f"{where}: not valid JSON: {_first_line(error)}") from error
            yield value
            place += 1
        if not ended:
            chunk = text.read(max(CHUNK, len(rest)))
            rest, ended = rest + chunk, not chunk
            if ended and not rest:
                return


def _skip(buffer: str, at: int) -> int:
    while at < len(buffer) and buffer[at] in BLANK:
        at += 1
    return at


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"key {next(name for name in names if names.count(name) > 1)!r} occurs twice")
    return record


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON value")


DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_no_constant)


def _json_error(error: json.JSONDecodeError, buffer: str) -> str:
    excerpt = buffer[error.pos : error.pos + 20]
    return f"{error.msg}, found {excerpt!r}" if excerpt else f"{error.msg}, found the end"


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
