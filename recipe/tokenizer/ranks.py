# SPDX-License-Identifier: Apache-2.0
"""`tiktoken.model`: a line for each token, its bytes in base64 and its rank, which is its id."""

from __future__ import annotations

import base64
import re
import shlex
from pathlib import Path

from recipe.weights.errors import WeightsError
from recipe.weights.wholeness import check_file_head

NAME = "tiktoken.model"
_LINE = re.compile(rb"([A-Za-z0-9+/]+={0,2}) ([0-9]{1,9})")


def read_ranks(file: Path) -> dict[bytes, int]:
    """The rank of each token, by its bytes, in the order of the ranks.

    Raises:
        WeightsError: it cannot be read, a line is no token with a rank, a token or a rank is there twice, a rank below
            the highest is missing, or one of the 256 single bytes is.
    """
    check_file_head(file)
    ranks: dict[bytes, int] = {}
    lines: dict[int, int] = {}
    for number, line in enumerate(_lines(file), 1):
        if not line.strip():
            continue
        token, rank = _token(line, f"{file}:{number}")
        if token in ranks:
            raise WeightsError(f"{file}:{number}: the token of line {lines[ranks[token]]}; expected each once")
        if rank in lines:
            raise WeightsError(f"{file}:{number}: the rank of line {lines[rank]}, {rank}; expected each once")
        ranks[token], lines[rank] = rank, number
    missing = next((rank for rank in range(len(lines)) if rank not in lines), None)
    if missing is not None:
        raise WeightsError(f"{file}: {len(lines)} tokens, none of rank {missing}; expected every rank from 0 on")
    absent = [byte for byte in range(256) if bytes([byte]) not in ranks]
    if absent:
        raise WeightsError(f"{file}: no token for the byte 0x{absent[0]:02x} ({len(absent)} of 256 bytes have none)")
    return dict(sorted(ranks.items(), key=lambda item: item[1]))


def tokenizer_json_fix(directory: Path) -> str | None:
    """What to type where a model's directory has no tokenizer that loads; None where `tiktoken.model` is not there."""
    if not (directory / NAME).is_file():
        return None
    return f"run: python -m recipe tokenizer-json {shlex.quote(str(directory))}"


def _lines(file: Path) -> list[bytes]:
    try:
        return file.read_bytes().splitlines()
    except OSError as error:
        raise WeightsError(f"{file}: cannot be read ({error.strerror})") from error


def _token(line: bytes, where: str) -> tuple[bytes, int]:
    match = _LINE.fullmatch(line.strip())
    try:
        if match is None:
            raise ValueError
        return base64.b64decode(match[1], validate=True), int(match[2])
    except ValueError:
        raise WeightsError(f"{where}: {line[:40]!r}; expected a token in base64, a space and its rank") from None
