# SPDX-License-Identifier: Apache-2.0
"""Put the one prelude line into an upstream, found by text, never by number."""

from __future__ import annotations

import os
from pathlib import Path

from recipe.files import write_atomically
from recipe.sources.errors import SourcesError, writing
from recipe.sources.pins import Prelude


def insert(text: str, prelude: Prelude) -> str:
    """`text` with the prelude line below its anchor; a text that has it already is returned as it is.

    SourcesError when the anchors are not there exactly once and in order: the upstream has changed.
    """
    lines = text.split("\n")
    if prelude.line in lines:
        return text
    for anchor in (prelude.after, prelude.before):
        if lines.count(anchor) != 1:
            raise SourcesError(
                f"{prelude.file} has the line {anchor!r} {lines.count(anchor)} times, expected once: the upstream has "
                "changed; look where the prelude line belongs now and correct [prelude] in upstreams.toml"
            )
    place = lines.index(prelude.after) + 1
    if lines.index(prelude.before) < place:
        raise SourcesError(f"{prelude.file}: {prelude.before!r} comes before {prelude.after!r}; correct [prelude]")
    return "\n".join([*lines[:place], prelude.line, *lines[place:]])


def insert_into(file: Path, prelude: Prelude) -> bool:
    """Put the line into a file of the user's; whether it was not there yet.  SourcesError as for `insert`."""
    text = file.read_text(encoding="utf-8")
    return _rewrite(file, text, insert(text, prelude))


def take_out_of(file: Path, prelude: Prelude) -> bool:
    """Take the line out of a file of the user's; whether it was there."""
    text = file.read_text(encoding="utf-8")
    return _rewrite(file, text, "\n".join(line for line in text.split("\n") if line != prelude.line))


def _rewrite(file: Path, before: str, after: str) -> bool:
    if before == after:
        return False
    target = file.resolve()  # of a link, what it leads to
    mode = target.stat().st_mode
    with writing(target, "make it writable"):
        write_atomically(target, after)
        os.chmod(target, mode)
    return True
