# SPDX-License-Identifier: Apache-2.0
"""Make `upstream/` hold exactly the wanted tree, all or nothing, and prove that it does."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from recipe.sources import swap
from recipe.sources.cache import sha256_of
from recipe.sources.compose import Tree, WantedTree, compose, hashes
from recipe.sources.errors import SourcesError, writing
from recipe.sources.index import Say


def _on_disk(tree: Path, tops: set[str]) -> Iterator[str]:
    """The files below the top-level entries `tops`, without what Python compiles beside them."""
    for top in sorted(tops):
        for directory, subdirectories, names in os.walk(tree / top):
            subdirectories[:] = [name for name in subdirectories if name != "__pycache__"]
            for name in names:
                yield str(Path(directory, name).relative_to(tree))


def differences(tree: Path, expected: dict[str, str]) -> list[str]:
    """How `tree` differs from the expected path -> SHA-256: "missing: ...", "changed: ...", "not ours: ..." lines."""
    lines = []
    for name, digest in expected.items():
        file = tree / name
        if file.is_symlink() or not file.is_file():
            lines.append(f"missing: {name}")
        elif sha256_of(file) != digest:
            lines.append(f"changed: {name}")
    tops = {name.partition("/")[0] for name in expected}
    lines += [f"not ours: {name}" for name in _on_disk(tree, tops) if name not in expected]
    return lines


def up_to_date(tree: Path, wanted: WantedTree) -> bool:
    """Whether a sync of this very tree left `tree` and nothing has been changed since."""
    manifest = swap.read_manifest(tree)
    return manifest is not None and manifest.get("pins") == wanted.digest() and not differences(tree, manifest["files"])


def sync(tree: Path, wanted: WantedTree, scratch: Path, say: Say) -> bool:
    """Make `tree` the wanted one; returns whether anything had to be done.

    Everything is fetched, checked and patched before a file is written; then the new tree takes the old one's place in
    one step.  Top-level entries that no sync has brought, such as a `mindspeed/` of the user, move over.
    """
    try:
        with swap.locked(scratch):
            swap.recover(tree, scratch, say)
            if up_to_date(tree, wanted):
                return False
            made = compose(wanted, say)
            say(f"writing {len(made.files)} files to {tree}")
            swap.put(_written(scratch / "upstream-new", made, wanted), tree, say)
            return True
    except SourcesError:
        # On a read-only disk no lock can be taken; none is needed when the tree is up to date.
        if up_to_date(tree, wanted):
            return False
        raise


def _written(new: Path, made: Tree, wanted: WantedTree) -> Path:
    try:
        with writing(new.parent):
            for name, content in made.files.items():
                file = new / name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content)
            manifest = json.dumps(wanted.manifest(made), indent=1) + "\n"
            (new / swap.MANIFEST).write_text(manifest, encoding="utf-8")
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    return new


def check(tree: Path, wanted: WantedTree, say: Say) -> list[str]:
    """How `tree` differs from "pinned + ours", worked out anew from the archives; fetches those not in the cache.

    A tree that is exactly the pinned one, without ours, gets one line that says so.
    """
    manifest = swap.read_manifest(tree)
    if manifest is None:
        return [f"{tree} was not made by sync, or not whole; run: python -m recipe sync"]
    made = compose(wanted, say)
    lines = differences(tree, hashes(made.files))
    if not lines or not made.changed:
        return lines
    if not differences(tree, hashes(made.files) | made.changed):
        line, patches = wanted.profile.prelude.file, len(wanted.patches)
        more = f" and {patches} source {'patches are' if patches > 1 else 'patch is'} not applied" if patches else ""
        return [f"pristine: the prelude line is missing from {line}{more}; run: python -m recipe sync"]
    return lines
