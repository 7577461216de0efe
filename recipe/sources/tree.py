# SPDX-License-Identifier: Apache-2.0
"""Make `upstream/` hold exactly the pinned sources plus our prelude line, all or nothing, and prove that it does."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from recipe.sources import archive, index
from recipe.sources.archive import Files
from recipe.sources.errors import SourcesError
from recipe.sources.index import Say
from recipe.sources.pins import Prelude, Profile

MANIFEST = "MANIFEST.json"


def insert_prelude(text: str, prelude: Prelude) -> str:
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


def compose(profile: Profile, say: Say) -> Files:
    """Every file that `upstream/` is to hold, by its path in it; fetches what is not in the cache."""
    files: Files = {}
    for pin in profile.pins:
        if pin.git:
            part = archive.read_sdist(index.fetch_commit(pin, say), pin)
        else:
            file = index.fetch_file(pin, say)
            part = archive.read_wheel(file, pin) if pin.file.endswith(".whl") else archive.read_sdist(file, pin)
        archive.check_version(part, pin)
        both = files.keys() & part.keys()
        if both:
            raise SourcesError(f"{pin.name} and another upstream both bring {min(both)}")
        files |= part
    prelude = profile.prelude
    if prelude.file not in files:
        raise SourcesError(f"{prelude.file} is not in the sources; correct [prelude] in upstreams.toml")
    files[prelude.file] = insert_prelude(files[prelude.file].decode("utf-8"), prelude).encode("utf-8")
    return files


def _hashes(files: Files) -> dict[str, str]:
    return {name: hashlib.sha256(content).hexdigest() for name, content in sorted(files.items())}


def _on_disk(tree: Path, tops: set[str]) -> Iterator[str]:
    """The files below the top-level entries `tops`, without what Python compiles beside them."""
    for top in sorted(tops):
        for directory, subdirectories, names in os.walk(tree / top):
            subdirectories[:] = [name for name in subdirectories if name != "__pycache__"]
            for name in names:
                yield str(Path(directory, name).relative_to(tree))


def differences(tree: Path, wanted: dict[str, str]) -> list[str]:
    """How `tree` differs from the wanted path -> SHA-256: "missing: ...", "changed: ...", "not ours: ..." lines."""
    lines = []
    for name, digest in wanted.items():
        file = tree / name
        if file.is_symlink() or not file.is_file():
            lines.append(f"missing: {name}")
        elif index.sha256_of(file) != digest:
            lines.append(f"changed: {name}")
    tops = {name.partition("/")[0] for name in wanted}
    lines += [f"not ours: {name}" for name in _on_disk(tree, tops) if name not in wanted]
    return lines


def read_manifest(tree: Path) -> dict[str, object] | None:
    try:
        content = json.loads((tree / MANIFEST).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
        return None
    return content if isinstance(content, dict) and isinstance(content.get("files"), dict) else None


def up_to_date(tree: Path, profile: Profile) -> bool:
    """Whether a sync of this very profile left `tree` and nothing has been changed since."""
    manifest = read_manifest(tree)
    if manifest is None or manifest.get("pins") != profile.digest():
        return False
    return not differences(tree, manifest["files"])  # type: ignore[arg-type]  # read_manifest saw that it is a dict


@contextlib.contextmanager
def _locked(scratch: Path) -> Iterator[None]:
    scratch.mkdir(parents=True, exist_ok=True)
    with (scratch / "sync.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def sync(tree: Path, profile: Profile, scratch: Path, say: Say) -> bool:
    """Make `tree` what the profile says; returns whether anything had to be done.

    The new tree is written under `scratch` (same file system as `tree`) and put in place by renaming, so whoever
    looks sees the old tree or the new one. Top-level entries that no sync has brought, such as a `mindspeed/` of the
    user, move over.
    """
    with _locked(scratch):
        old = scratch / "upstream-old"
        _adopt(old, tree)
        for left in scratch.glob("upstream-new-*"):
            shutil.rmtree(left)
        if up_to_date(tree, profile):
            return False
        files = compose(profile, say)
        say(f"writing {len(files)} files to {tree}")
        new = scratch / f"upstream-new-{os.getpid()}"
        try:
            _write(new, files, profile)
            if tree.exists():
                tree.rename(old)
            new.rename(tree)
            _adopt(old, tree)
        except OSError as error:
            shutil.rmtree(new, ignore_errors=True)
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise SourcesError(f"no room on the disk of {tree}: {len(files)} files need about 40 MB") from None
            raise SourcesError(f"cannot write {tree}: {error}") from None
    return True


def _adopt(old: Path, tree: Path) -> None:
    """Move what the user put into a replaced tree over to its successor, then delete the replaced one."""
    if not old.is_dir():
        return
    if not tree.exists():  # stopped between the two renames
        old.rename(tree)
        return
    manifest = read_manifest(old)
    brought = {name.partition("/")[0] for name in manifest["files"]} if manifest else set()  # type: ignore[attr-defined]  # a dict
    for entry in old.iterdir():
        if entry.name not in brought and entry.name != MANIFEST and not (tree / entry.name).exists():
            entry.rename(tree / entry.name)
    shutil.rmtree(old)


def _write(new: Path, files: Files, profile: Profile) -> None:
    for name, content in files.items():
        file = new / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    manifest = {
        "profile": profile.name,
        "pins": profile.digest(),
        "upstreams": {
            pin.name: {"version": pin.version} | ({"commit": pin.commit} if pin.git else {"sha256": pin.sha256})
            for pin in profile.pins
        },
        "files": _hashes(files),
    }
    (new / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


def check(tree: Path, profile: Profile, say: Say) -> list[str]:
    """How `tree` differs from "pinned + ours", worked out anew from the archives; fetches those not in the cache."""
    if read_manifest(tree) is None:
        return [f"{tree} was not made by sync, or not whole; run: python -m recipe sync --profile {profile.name}"]
    return differences(tree, _hashes(compose(profile, say)))
