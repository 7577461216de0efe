# SPDX-License-Identifier: Apache-2.0
"""The logs and events of one node, on their way into the run directory at the head."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from recipe.launch.ray_logs import open_own
from recipe.runfile.typed_toml import shown

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
            budget, first = LARGEST_FILE, True
            while budget > 0 and (data := file.read(min(_CHUNK, budget))):
                budget -= len(data)
                text = base64.b64encode(data).decode("ascii")
                yield {"kind": "log", "file": str(path.relative_to(directory)), "first": first, "data": text}
                first = False


def write_chunk(directory: Path, message: dict[str, Any]) -> None:
    """Append what `chunks` made to its file under `directory`; the first chunk of a file replaces what was there.

    Raises:
        ValueError: it is no chunk, or its name leads elsewhere: the sender holds the token, but has no say over the
            head's other files.
        OSError: the file cannot be written.
    """
    file, data, first = (message.get(key) for key in ("file", "data", "first"))
    if not isinstance(file, str) or not isinstance(data, str) or not isinstance(first, bool):
        raise ValueError("a piece of a log without its file, its place in it, or its content")
    name = Path(file)
    if name.is_absolute() or ".." in name.parts or name.suffix not in _SUFFIXES or not file.isprintable():
        raise ValueError(f"{shown(file)} is no name of a log")
    content = base64.b64decode(data, validate=True)
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb" if first else "ab") as log:
        log.write(content)
