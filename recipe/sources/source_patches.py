# SPDX-License-Identifier: Apache-2.0
"""Apply our `*_patches/**/*.patch` to upstream files in memory; each must fit its header exactly.

A patch is refused unless the target is one that its header names, becomes the one its header names, and nothing else
changes.  `git apply` does the work, in a scratch directory that no repository around it can reach into.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from recipe.overlay import source, source_patch
from recipe.overlay.declaration import Declaration
from recipe.overlay.errors import OverlayError
from recipe.overlay.target import module_name
from recipe.sources.archive import Files
from recipe.sources.errors import SourcesError
from recipe.sources.git import NoGit


@dataclass(frozen=True)
class PatchFile:
    """A `.patch` file of the recipe: `name` is its path there, `sha256` that of its content, `diff` its diff."""

    name: str
    sha256: str
    patch: Declaration
    diff: str


def listed(root: Path, packages: Iterable[str]) -> tuple[PatchFile, ...]:
    """The source patches under `root` whose upstream package is one of `packages`; SourcesError: a malformed one."""
    wanted = set(packages)
    patches = []
    for file in source_patch.files(root):
        name = file.relative_to(root).as_posix()
        try:
            patch, diff = source_patch.read(file, module_name(file, root)), source_patch.diff(file)
            sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
        except (OverlayError, OSError, UnicodeDecodeError) as error:
            raise SourcesError(f"{name}: {_line(str(error).removeprefix(f'{file}: '))}") from None
        if patch.package in wanted:
            patches.append(PatchFile(name, sha256, patch, diff))
    return tuple(patches)


def apply(patches: Iterable[PatchFile], files: Files) -> Files:
    """The files that the patches change, changed, by path; `files` stays as it is.  SourcesError: one does not fit."""
    changed: Files = {}
    for entry in patches:
        base = entry.patch.target.module.replace(".", "/")
        path = next((path for path in (f"{base}/__init__.py", f"{base}.py") if path in files), None)
        if path is None:
            raise SourcesError(f"{entry.name}: the upstream has no module {entry.patch.target.module}")
        changed[path] = _applied(entry, path, changed.get(path, files[path]))
    return changed


def _applied(entry: PatchFile, path: str, before: bytes) -> bytes:
    patch = entry.patch
    old = _find(entry, path, before, "as pinned")
    if old.fingerprint in patch.patched:  # an adopted tree may have it
        return before
    if old.fingerprint not in patch.fingerprints:
        raise SourcesError(
            f"{entry.name}: {patch.target} in {path} is {old.fingerprint}, the header says Fingerprint: "
            f"{' '.join(patch.fingerprints)}; the upstream has changed: look at the target and write the patch anew"
        )
    after = _git_apply(entry, path, before)
    new = _find(entry, path, after, "as patched")
    expected = patch.patched[patch.fingerprints.index(old.fingerprint)]
    if new.fingerprint != expected:
        raise SourcesError(
            f"{entry.name}: {patch.target} in {path} becomes {new.fingerprint}, the header says Patched: {expected}; "
            "correct the header or the diff"
        )
    if _outside(old) != _outside(new):
        raise SourcesError(f"{entry.name}: it changes lines of {path} outside of {patch.target}; narrow the diff")
    return after


def _find(entry: PatchFile, path: str, content: bytes, state: str) -> source.Excerpt:
    try:
        return source.find_in(content, Path(path), entry.patch.target.qualname)
    except (OverlayError, SyntaxError, ValueError) as error:
        raise SourcesError(f"{entry.name}: no {entry.patch.target} in {path} {state}: {_line(str(error))}") from None


def _outside(excerpt: source.Excerpt) -> list[bytes]:
    """The lines of the file that do not belong to the target."""
    lines: list[bytes] = excerpt.content.split(b"\n")
    for first, last in sorted(excerpt.lines, reverse=True):
        lines[first - 1 : last] = []
    return lines


def _git_apply(entry: PatchFile, path: str, before: bytes) -> bytes:
    with tempfile.TemporaryDirectory(prefix="source-patch-") as name:
        scratch = Path(name).resolve()
        file = scratch / path
        file.parent.mkdir(parents=True)
        file.write_bytes(before)
        touched = _git(entry, path, scratch, "--numstat", "-z").decode("utf-8", "replace").split("\0")
        names = sorted({entry.split("\t", 2)[-1] for entry in touched if entry})
        if names != [path]:
            unnamed = ", ".join(name for name in names if name != path)
            raise SourcesError(f"{entry.name}: it changes {unnamed}, expected a change of {path} and nothing else")
        _git(entry, path, scratch, "--whitespace=nowarn")
        return file.read_bytes()


def _git(entry: PatchFile, path: str, scratch: Path, *options: str) -> bytes:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    # A repository around the temporary directory would make git apply skip files outside of its index without a word.
    own = {
        "GIT_CEILING_DIRECTORIES": str(scratch.parent), "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull,
        "LC_ALL": "C",
    }  # fmt: skip
    try:
        done = subprocess.run(
            ["git", "apply", *options, "-"], cwd=scratch, env={**kept, **own}, input=entry.diff.encode(),
            capture_output=True, check=False, timeout=60,
        )  # fmt: skip
    except FileNotFoundError:
        raise NoGit() from None
    except subprocess.TimeoutExpired:
        raise SourcesError(f"{entry.name}: git apply took longer than 60 s on {path}") from None
    if done.returncode != 0:
        raise SourcesError(f"{entry.name}: does not apply to {path}: {_line(done.stderr.decode('utf-8', 'replace'))}")
    return done.stdout


def _line(text: str) -> str:
    return (text.strip().splitlines() or ["no reason given"])[0]
