# SPDX-License-Identifier: Apache-2.0
"""Make `upstream/` hold exactly the wanted tree, all or nothing, and prove that it does."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from recipe.sources import swap
from recipe.sources.adopted import listing, remembered
from recipe.sources.cache import sha256_of
from recipe.sources.compose import Tree, WantedTree, compose, hashes
from recipe.sources.errors import SourcesError, writing
from recipe.sources.index import Say

NOTHING: Mapping[str, Any] = MappingProxyType({})


def _on_disk(tree: Path, tops: set[str]) -> Iterator[str]:
    """The files below the top-level entries `tops`, without what Python compiles beside them."""
    for top in sorted(tops):
        for directory, subdirectories, names in os.walk(tree / top):
            subdirectories[:] = [name for name in subdirectories if name != "__pycache__"]
            for name in names:
                yield str(Path(directory, name).relative_to(tree))


def differences(tree: Path, expected: Mapping[str, str], adopted: Mapping[str, Any] = NOTHING) -> list[str]:
    """How `tree` differs from the expected path -> SHA-256: "missing: ...", "changed: ...", "not ours: ..." lines.

    adopted: what its manifest says of the packages that are the user's, whose files may be reached through links.
    """
    lines = []
    for name, digest in expected.items():
        file = tree / name
        if (file.is_symlink() and name.partition("/")[0] not in adopted) or not file.is_file():
            lines.append(f"missing: {name}")
        elif sha256_of(file) != digest:
            lines.append(f"changed: {name}")
    tops = {name.partition("/")[0] for name in expected} - adopted.keys()
    # A file that is new in theirs may be beside a link.
    places = {package: Path(entry["path"]) for package, entry in adopted.items()}
    theirs = [f"{package}/{name}" for package, place in places.items() if place.is_dir() for name in listing(place)]
    there = [*_on_disk(tree, tops), *theirs]
    lines += [f"not ours: {name}" for name in there if name not in expected]
    for package, entry in adopted.items():
        for name, digest in entry["own"].items():
            file = places[package] / name.removeprefix(f"{package}/")
            # Ours stands in for it; where the user has put the line there, too, the two are the same.
            if not file.is_file() or sha256_of(file) not in (digest, expected.get(name)):
                lines.append(f"changed: {file} (ours was made of it)")
    return lines


def changes(tree: Path, manifest: Mapping[str, Any]) -> list[str]:
    """How `tree` differs from what its manifest says."""
    return differences(tree, manifest["files"], manifest.get("adopted", {}))


def up_to_date(tree: Path, wanted: WantedTree) -> bool:
    """Whether a sync of this very tree left `tree` and nothing has been changed since."""
    manifest = swap.read_manifest(tree)
    if manifest is None or manifest.get("pins") != wanted.digest():
        return False
    before = [(one.package, one.path, one.line) for one in remembered(manifest).values()]
    now = [(one.package, one.path, one.line) for one in wanted.adopted]
    return before == now and not changes(tree, manifest)


def sync(tree: Path, wanted: WantedTree, scratch: Path, say: Say, anew: bool = False) -> bool:
    """Make `tree` the wanted one; returns whether anything had to be done.

    Everything is fetched, checked and patched before a file is written; then the new tree takes the old one's place in
    one step.  Top-level entries that no sync has brought, such as a `mindspeed/` of the user, move over.  anew: what is
    adopted is looked at again where nothing has changed since, too.
    """
    try:
        with swap.locked(scratch):
            swap.recover(tree, scratch, say)
            if not anew and up_to_date(tree, wanted):
                return False
            made = compose(wanted, tree, say)
            if wanted.manifest(made) == swap.read_manifest(tree) and up_to_date(tree, wanted):
                return False
            say(f"writing {len(made.files)} files to {tree}")
            swap.put(_written(scratch / "upstream-new", made, wanted), tree, say)
            return True
    except SourcesError:
        # On a read-only disk no lock can be taken; none is needed when the tree is up to date.
        if not anew and up_to_date(tree, wanted):
            return False
        raise


def _written(new: Path, made: Tree, wanted: WantedTree) -> Path:
    try:
        with writing(new.parent):
            for name, content in made.files.items():
                file = new / name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content)
            for name, target in made.links.items():
                link = new / name
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(target)
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
    made = compose(replace(wanted, adopted=()), tree, say)
    expected, adopted = hashes(made.files), manifest.get("adopted", {})
    accepted = {name for entry in adopted.values() for name in entry["accepted"]}
    # What an adopted package has beyond the pinned one.
    more = {
        name: digest
        for name, digest in manifest["files"].items()
        if name.partition("/")[0] in adopted and name not in expected and name not in accepted
    }
    lines = [
        f"{line} (accepted)" if line.partition(": ")[2] in accepted else line
        for line in differences(tree, expected | more, adopted)
    ]
    if not lines or not made.changed:
        return lines
    if not differences(tree, expected | more | made.changed, adopted):
        line, patches = wanted.profile.prelude.file, len(wanted.patches)
        more_text = (
            f" and {patches} source {'patches are' if patches > 1 else 'patch is'} not applied" if patches else ""
        )
        return [f"pristine: the prelude line is missing from {line}{more_text}; run: python -m recipe sync"]
    return lines
