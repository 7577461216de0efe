# SPDX-License-Identifier: Apache-2.0
"""What `upstream/` is to hold: the pinned files, and ours on top of them (the prelude line and the source patches)."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from recipe.sources import cache, fetch, prelude, source_patches
from recipe.sources.archive import Files
from recipe.sources.errors import SourcesError, Unreachable
from recipe.sources.index import Say
from recipe.sources.pins import Pin, Profile
from recipe.sources.source_patches import PatchFile


@dataclass(frozen=True)
class WantedTree:
    """The tree that is to be made: a profile with our source patches, or, when `pristine`, the profile alone."""

    profile: Profile
    patches: tuple[PatchFile, ...] = ()
    pristine: bool = False

    def digest(self) -> str:
        """SHA-256 over everything that decides what `upstream/` holds."""
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
            "files": hashes(tree.files),
        }


@dataclass(frozen=True)
class Tree:
    """Every file by its path under `upstream/`; `changed`: the SHA-256 as pinned of those that ours changes."""

    files: Files
    changed: dict[str, str]


def _described(pin: Pin) -> dict[str, Any]:
    origin = {"git": pin.git, "commit": pin.commit} if pin.git else {"file": pin.file, "sha256": pin.sha256}
    return {"version": pin.version, "packages": list(pin.packages)} | origin


def wanted(profile: Profile, root: Path, pristine: bool = False) -> WantedTree:
    """The tree of a profile with the source patches under `root`, the recipe's directory."""
    packages = [package for pin in profile.pins for package in pin.packages]
    return WantedTree(profile, () if pristine else source_patches.listed(root, packages), pristine)


def hashes(files: Files) -> dict[str, str]:
    return {name: hashlib.sha256(content).hexdigest() for name, content in sorted(files.items())}


def compose(wanted: WantedTree, say: Say) -> Tree:
    """Make the wanted tree in memory; fetches what is not in the cache.  SourcesError: something does not fit."""
    pinned: Files = {}
    for pin in wanted.profile.pins:
        try:
            part = fetch.read(pin, fetch.bring(pin, say))
        except Unreachable as error:
            missing = [
                other_pin.name
                for other_pin in wanted.profile.pins
                if other_pin is not pin and not cache.place_of(other_pin).exists()
            ]
            more = f" (also missing: {', '.join(missing)})" if missing else ""
            raise Unreachable(f"{error}{more}") from None
        common = pinned.keys() & part.keys()
        if common:
            raise SourcesError(f"{pin.name} and another upstream both bring {min(common)}")
        pinned |= part
    if wanted.pristine:
        return Tree(pinned, {})
    line = wanted.profile.prelude
    if line.file not in pinned:
        raise SourcesError(f"{line.file} is not in the sources; correct [prelude] in upstreams.toml")
    ours = source_patches.apply(wanted.patches, pinned)
    text = ours.get(line.file, pinned[line.file]).decode("utf-8")
    ours[line.file] = prelude.insert(text, line).encode("utf-8")
    changed = {name: hashlib.sha256(pinned[name]).hexdigest() for name in sorted(ours) if ours[name] != pinned[name]}
    return Tree(pinned | ours, changed)
