# SPDX-License-Identifier: Apache-2.0
"""What `upstream/` is to hold: the pinned files, and ours on top of them (the prelude line and the source patches)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from recipe.sources import adopted, cache, fetch, prelude, source_patches
from recipe.sources.adopted import Adopted
from recipe.sources.archive import Files
from recipe.sources.errors import SourcesError, Unreachable
from recipe.sources.examine import Examined, declared, examine, known
from recipe.sources.index import Say
from recipe.sources.pins import Pin, Profile, read_pins
from recipe.sources.source_patches import PatchFile


@dataclass(frozen=True)
class WantedTree:
    """The tree that is to be made: a profile with our source patches, or, when `pristine`, the profile alone.

    root: the recipe's directory.  adopted: trees of the user's in place of pinned packages.
    """

    profile: Profile
    root: Path
    patches: tuple[PatchFile, ...] = ()
    pristine: bool = False
    adopted: tuple[Adopted, ...] = ()

    def digest(self) -> str:
        """SHA-256 over everything that decides what `upstream/` holds, but for what is adopted."""
        patches = [(patch.name, patch.sha256) for patch in self.patches]
        inputs = [asdict(self.profile), patches, self.pristine]
        return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()

    def manifest(self, tree: Tree) -> dict[str, Any]:
        """What `upstream/MANIFEST.json` says of the composed tree."""
        line = self.profile.prelude
        return {
            "profile": self.profile.name,
            "beside": list(self.profile.beside),
            "state": "pristine" if self.pristine else "ours",
            "pins": self.digest(),
            "upstreams": {pin.name: _described(pin) for pin in self.profile.pins},
            "prelude": None if self.pristine else {"file": line.file, "line": line.line},
            "source_patches": [
                {"file": listed.name, "sha256": listed.sha256, "target": str(listed.patch.target)}
                for listed in self.patches
            ],
            # path -> SHA-256 as pinned, of the files whose content is ours in part
            "changed": tree.changed,
            "files": dict(sorted((hashes(tree.files) | tree.linked).items())),
        } | ({"adopted": {one.adopted.package: one.entry() for one in tree.examined}} if tree.examined else {})


@dataclass(frozen=True)
class Tree:
    """Every file by its path under `upstream/`; `changed`: the SHA-256 as pinned of those that ours changes.

    links: what shows the adopted trees, by path; linked: the SHA-256 of the files that are reached so.
    """

    files: Files
    changed: dict[str, str]
    links: dict[str, Path] = field(default_factory=dict)
    linked: dict[str, str] = field(default_factory=dict)
    examined: tuple[Examined, ...] = ()


def _described(pin: Pin) -> dict[str, Any]:
    origin = {"git": pin.git, "commit": pin.commit} if pin.git else {"file": pin.file, "sha256": pin.sha256}
    return {"version": pin.version, "packages": list(pin.packages)} | origin


def wanted(profile: Profile, root: Path, pristine: bool = False, taken: Iterable[Adopted] = ()) -> WantedTree:
    """The tree of a profile with the source patches under `root`, the recipe's directory, and adopted trees."""
    packages = [package for pin in profile.pins for package in pin.packages]
    patches = () if pristine else source_patches.listed(root, packages)
    return WantedTree(profile, root, patches, pristine, tuple(sorted(taken, key=lambda one: one.package)))


def hashes(files: Files) -> dict[str, str]:
    return {name: _sha256(content) for name, content in sorted(files.items())}


def compose(wanted: WantedTree, tree: Path, say: Say) -> Tree:
    """Make the wanted tree in memory; fetches what is not in the cache.

    Args:
        wanted: what is to be made.
        tree: `upstream/` as it is, which may hold what the cache does not.
        say: told what takes time, and how adopted trees are.

    Raises:
        SourcesError: something does not fit.
    """
    examined = _examined(wanted, tree, say)
    taken = {one.adopted.package for one in examined}
    pinned: Files = {}
    for pin in wanted.profile.pins:
        if taken.issuperset(pin.packages):
            continue
        part = _brought(pin, wanted.profile, say)
        common = pinned.keys() & part.keys()
        if common:
            raise SourcesError(f"{pin.name} and another upstream both bring {min(common)}")
        pinned |= {name: content for name, content in part.items() if name.partition("/")[0] not in taken}
    for one in examined:
        pinned |= one.known.provided
    own = {} if wanted.pristine else _ours(wanted, pinned | _theirs(wanted, examined))
    files = pinned | own
    changed = {}
    for name in sorted(own):
        before = next((one.files[name] for one in examined if name in one.files), "") or _sha256(pinned[name])
        if before != _sha256(own[name]):
            changed[name] = before
    links: dict[str, Path] = {}
    linked: dict[str, str] = {}
    for one in examined:
        links |= adopted.links(one.adopted, files)
        linked |= {name: digest for name, digest in one.files.items() if name not in files}
        one.own.update({name: digest for name, digest in one.files.items() if name in own})
    return Tree(files, changed, links, linked, tuple(examined))


def _examined(wanted: WantedTree, tree: Path, say: Say) -> list[Examined]:
    """What is adopted, looked at; all of it is said."""
    if not wanted.adopted:
        return []
    patches, examined, every = declared(wanted.root), [], read_pins(wanted.root / "upstreams.toml")
    pins = {package: every.complete(pin) for pin in wanted.profile.pins for package in pin.packages}
    for one in wanted.adopted:
        what = known(pins[one.package], tree, wanted.patches, wanted.profile.prelude)
        examined.append(examine(one, what, patches))
        for line in examined[-1].lines():
            say(line)
    return examined


def _brought(pin: Pin, profile: Profile, say: Say) -> Files:
    try:
        return fetch.read(pin, fetch.bring(pin, say))
    except Unreachable as error:
        missing = [
            other_pin.name
            for other_pin in profile.pins
            if other_pin is not pin and not cache.place_of(other_pin).exists()
        ]
        more = f" (also missing: {', '.join(missing)})" if missing else ""
        raise Unreachable(f"{error}{more}") from None


def _theirs(wanted: WantedTree, examined: list[Examined]) -> Files:
    """The files of adopted trees that ours may change."""
    places = {one.adopted.package: one.adopted.path for one in examined}
    bases = [entry.patch.target.module.replace(".", "/") for entry in wanted.patches]
    names = [wanted.profile.prelude.file, *(base + end for base in bases for end in ("/__init__.py", ".py"))]
    files: Files = {}
    for name in names:
        package, _, below = name.partition("/")
        if package in places and (places[package] / below).is_file():
            files[name] = (places[package] / below).read_bytes()
    return files


def _ours(wanted: WantedTree, files: Files) -> Files:
    """The files that ours change, with it in them."""
    line = wanted.profile.prelude
    if line.file not in files:
        raise SourcesError(f"{line.file} is not in the sources; correct [prelude] in upstreams.toml")
    ours = source_patches.apply(wanted.patches, files)
    text = ours.get(line.file, files[line.file]).decode("utf-8")
    return ours | {line.file: prelude.insert(text, line).encode("utf-8")}


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
