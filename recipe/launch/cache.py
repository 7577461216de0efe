# SPDX-License-Identifier: Apache-2.0
"""Directories made once from known inputs and kept under the hash of them."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any


def digest(settings: Mapping[str, Any], files: Iterable[Path]) -> str:
    """A short hash of JSON-able settings and of the contents of files."""
    hasher = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for path in sorted(files):
        hasher.update(path.name.encode())
        hasher.update(hashlib.sha256(path.read_bytes()).digest())
    return hasher.hexdigest()[:12]


def cached(root: Path, kind: str, key: str, build: Callable[[Path], None]) -> tuple[Path, bool]:
    """The directory `root/kind-key`, built by `build(directory)` when it is not there yet.

    Returns the directory and whether it was there. It appears whole or not at all: it is built under another name and
    renamed. A second process that wants the same directory meanwhile waits and then uses the first one's.
    """
    root.mkdir(parents=True, exist_ok=True)
    target = root / f"{kind}-{key}"
    with open(root / f".{kind}-{key}.lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if target.is_dir():
            return target, True
        unfinished = root / f".{kind}-{key}.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        build(unfinished)
        os.rename(unfinished, target)
    return target, False
