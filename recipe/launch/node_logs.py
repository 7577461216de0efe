# SPDX-License-Identifier: Apache-2.0
"""The logs and events of one node, on their way into the run directory at the head."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from recipe.launch.ray_logs import open_own

# Of a longer file only the end is sent: that is where the cause of a failure stands.
LARGEST_FILE = 16 * 2**20
_CHUNK = 2**19
_SUFFIXES = (".out", ".err", ".log", ".jsonl")


def chunks(directory: Path) -> Iterator[dict[str, Any]]:
    """Messages that carry the text files under `directory`, in the order in which `write_chunk` takes them."""
    for path in sorted(directory.rglob("*")):
        if path.suffix not in _SUFFIXES:
            continue
        try:
            file = open_own(path)
        except OSError:
            continue  # a link, a pipe, another user's
        with file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - LARGEST_FILE))
            left, first = LARGEST_FILE, True
            while left > 0 and (data := file.read(min(_CHUNK, left))):
                left -= len(data)
                text = base64.b64encode(data).decode("ascii")
                yield {"kind": "log", "file": str(path.relative_to(directory)), "first": first, "data": text}
                first = False


def write_chunk(directory: Path, message: dict[str, Any]) -> None:
    """Append what `chunks` made to its file under `directory`; the first chunk of a file replaces what was there.

    A name that leads elsewhere is left out: the sender holds the token, but has no say over the head's other files.
    """
    name = Path(str(message["file"]))
    if name.is_absolute() or ".." in name.parts or name.suffix not in _SUFFIXES:
        return
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb" if message["first"] else "ab") as file:
        file.write(base64.b64decode(str(message["data"])))
