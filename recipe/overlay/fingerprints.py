# SPDX-License-Identifier: Apache-2.0
"""A record on disk of the targets found in upstream files, by content, so that workers need not parse these files.

Parsing the files of all patches takes tenths of a second, hashing them milliseconds.  `python -m recipe patches
verify`, which the launcher runs, writes the record; everyone else reads it.  It is keyed by the SHA-256 of the file's
content and of the code that takes fingerprints, so a changed file or rule is a miss, never a wrong hit.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
from pathlib import Path
from typing import Any

# (fingerprint, lines of the statements, plain): the fields of source.Excerpt that depend on the content only.
Known = tuple[str, tuple[tuple[int, int], ...], bool]

_FILE = Path(__file__).resolve().parents[2] / ".cache" / "fingerprints.json"
_used: dict[str, list[Any]] = {}


@functools.cache
def _stored() -> dict[str, list[Any]]:
    try:
        stored = json.loads(_FILE.read_bytes())
    except (OSError, ValueError):
        return {}
    fits = isinstance(stored, dict) and stored.get("rule") == _rule()
    return stored["targets"] if fits else {}


@functools.cache
def _rule() -> str:
    return hashlib.sha256(Path(__file__).with_name("source.py").read_bytes()).hexdigest()


@functools.lru_cache(maxsize=8)
def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def recall(content: bytes, qualname: str | None) -> Known | None:
    """What was found for `qualname` in a file of this content, None when that is not known."""
    key = f"{_digest(content)} {qualname or ''}"
    entry = _stored().get(key)
    if entry is None:
        return None
    _used[key] = entry
    fingerprint, lines, plain = entry
    return fingerprint, tuple((first, last) for first, last in lines), plain


def remember(content: bytes, qualname: str | None, known: Known) -> None:
    """Keep what was found until `save`."""
    _used[f"{_digest(content)} {qualname or ''}"] = list(known)


def save() -> None:
    """Write what this process has asked for, and only that, so that the record does not grow.

    On a read-only disk nothing is written and everyone parses.
    """
    if _used.items() <= _stored().items():
        return
    part = _FILE.with_name(f".fingerprints.{os.getpid()}")
    try:
        _FILE.parent.mkdir(exist_ok=True)
        part.write_text(json.dumps({"rule": _rule(), "targets": _used}), encoding="utf-8")
        part.replace(_FILE)
    except OSError:
        with contextlib.suppress(OSError):
            part.unlink()
