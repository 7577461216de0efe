# SPDX-License-Identifier: Apache-2.0
"""How an adopted tree differs from the pinned one, as far as that is at hand, and whether our patches fit it."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from recipe.audit import fit
from recipe.audit.declarations import collect
from recipe.overlay.declaration import Declaration
from recipe.overlay.errors import OverlayError
from recipe.sources import cache, fetch, prelude, source_patches, swap
from recipe.sources.adopted import Adopted, hashed
from recipe.sources.archive import COMPILED, Files, metadata_of
from recipe.sources.errors import SourcesError
from recipe.sources.pins import Pin, Prelude
from recipe.sources.source_patches import PatchFile

SHOWN = 10
# What a build writes into a package: a copied checkout lacks them, an image has others.
BUILT = ("_version.py", "_build_info.py")


@dataclass(frozen=True)
class Known:
    """What is known of a pin without a network.

    hashes: the SHA-256 that each file may have: as pinned, and with ours in it; None where the pinned files are not at
    hand.  provided: metadata and what a build writes, which a copied checkout does not have.
    """

    hashes: Mapping[str, frozenset[str]] | None
    provided: Files


@dataclass(frozen=True)
class Examined:
    """An adopted tree as it is: `files` as `hashed` gives them, `differs` as `Adopted.accepted`."""

    adopted: Adopted
    known: Known
    files: Mapping[str, str]
    differs: Mapping[str, str]
    more: int = 0
    patches: int = 0
    own: dict[str, str] = field(default_factory=dict)

    def entry(self) -> dict[str, Any]:
        """What a manifest says of it; `own` are the files that ours stand in for, with the SHA-256 of theirs."""
        return {
            "path": str(self.adopted.path), "compared": self.known.hashes is not None, "line": self.adopted.line,
            "accepted": dict(self.differs), "own": self.own,
        }  # fmt: skip

    def lines(self) -> list[str]:
        """What there is to say of it: the tree, then its differences."""
        if self.known.hashes is None:
            verdict = "not compared file by file, as neither the cache nor upstream/ has the pinned files"
        else:
            verdict = f"{len(self.differs)} differ from the pinned ones" if self.differs else "as pinned"
        more = f" ({self.more} of them not pinned)" if self.more else ""
        fits = f"; {self.patches} patch{'es fit' if self.patches != 1 else ' fits'}" if self.patches else ""
        head = f"{self.adopted.package} in {self.adopted.path}: {len(self.files)} files{more}, {verdict}{fits}"
        return [head, *(f"  {line}" for line in shown(self.differs))]


def shown(differs: Mapping[str, str]) -> list[str]:
    """So many of the differences, and the number of the others."""
    lines = [f"{'changed' if digest else 'missing'}: {name}" for name, digest in differs.items()]
    return lines[:SHOWN] + ([f"and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else [])


def declared(root: Path) -> list[Declaration]:
    """Our patches under `root`, the recipe's directory; SourcesError: one is malformed."""
    try:
        return collect(root)
    except (OverlayError, OSError, SyntaxError, UnicodeDecodeError) as error:
        raise SourcesError(str(error).partition("\n")[0]) from None


def is_built(name: str) -> bool:
    """Whether a path under `upstream/` is one of a file that a build writes."""
    return PurePosixPath(name).name in BUILT and name.count("/") == 1


def known(pin: Pin, tree: Path, patches: Iterable[PatchFile], line: Prelude) -> Known:
    """What is at hand of a pin: in the cache, else in the tree that sync has made; `pin` says itself what builds write.

    Args:
        pin: with all that is known of its entry points and built files (`Pins.complete`).
        tree: `upstream/`.
        patches: our source patches.
        line: the prelude line.
    """
    built: Files = {name: text.lstrip("\n").encode() for name, text in pin.generate.items()} | metadata_of(pin)
    place = cache.cached(pin)
    if place is not None:
        files = fetch.read(pin, place)
        ours = source_patches.apply([one for one in patches if one.patch.package in pin.packages], files)
        if line.file in files:
            text = ours.get(line.file, files[line.file]).decode("utf-8")
            ours[line.file] = prelude.insert(text, line).encode("utf-8")
        hashes = {name: frozenset(map(_sha256, (content, ours.get(name, content)))) for name, content in files.items()}
        return Known(_packages(pin, hashes), built | {name: files[name] for name in files if _is_provided(pin, name)})
    manifest = swap.read_manifest(tree) or {}
    origin = manifest.get("upstreams", {}).get(pin.name, {})
    taken = set(manifest.get("adopted", {})) & set(pin.packages)
    if taken or (origin.get("commit"), origin.get("sha256")) != (pin.commit or None, pin.sha256 or None):
        return Known(None, built)
    changed = manifest.get("changed", {})
    hashes = {name: frozenset((digest, changed.get(name, digest))) for name, digest in manifest["files"].items()}
    provided = {
        name: (tree / name).read_bytes() for name in hashes if _is_provided(pin, name) and (tree / name).is_file()
    }
    return Known(_packages(pin, hashes), built | provided)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _packages(pin: Pin, hashes: Mapping[str, frozenset[str]]) -> dict[str, frozenset[str]]:
    """Those of a pin's packages, without what is compiled and what a build writes."""
    return {
        name: digests for name, digests in hashes.items()
        if name.partition("/")[0] in pin.packages and not is_built(name) and not name.endswith(COMPILED)
    }  # fmt: skip


def _is_provided(pin: Pin, name: str) -> bool:
    top = name.partition("/")[0]
    return top == pin.dist_info or (top in pin.packages and is_built(name))


def examine(adopted: Adopted, what: Known, patches: Iterable[Declaration]) -> Examined:
    """Compare an adopted tree with what is known, and our patches with it.

    Raises:
        SourcesError: the directory cannot be read, a patch does not fit it, or it differs where that is not accepted.
    """
    if not adopted.path.is_dir():
        raise SourcesError(
            f"{adopted.path}, adopted as {adopted.package}, is not there; bring it back, or take the pinned one: "
            f"python -m recipe sync --unadopt {adopted.package}"
        )
    files = {name: digest for name, digest in hashed(adopted).items() if name not in what.provided}
    pinned = what.hashes or {}
    of_package = {name: digests for name, digests in pinned.items() if name.partition("/")[0] == adopted.package}
    differs = {
        name: files.get(name, "") for name, digests in sorted(of_package.items()) if files.get(name, "") not in digests
    }
    more = [name for name in files if name not in pinned and not is_built(name)] if pinned else []
    # A package beside the pinned module of its name is imported in its place.
    differs |= {
        name: files[name]
        for name in more
        if PurePosixPath(name).name == "__init__.py" and f"{PurePosixPath(name).parent}.py" in pinned
    }
    own = [patch for patch in patches if patch.package == adopted.package]
    _require_fits(adopted, own)
    examined = Examined(adopted, what, files, differs, len(more), len(own))
    news = {name: digest for name, digest in differs.items() if adopted.accepted.get(name) != digest}
    if news and not adopted.accept:
        raise SourcesError(
            f"{adopted.path} differs from the pinned {adopted.package} in {len(news)} of {len(of_package)} files: "
            f"{'; '.join(shown(news))}; our patches fit it: to run it as it is, type: python -m recipe sync --adopt "
            f"{adopted.path} --accept-differences"
        )
    return examined


def _require_fits(adopted: Adopted, patches: list[Declaration]) -> None:
    """Refuse a tree that a patch does not fit: the process that imports the module would be stopped."""
    with tempfile.TemporaryDirectory(prefix="adopted-") as name:
        root = Path(name)
        (root / adopted.package).symlink_to(adopted.path)
        findings = [fit.check(patch, [root], want_patched=False) for patch in patches]
    wrong = [finding for finding in findings if not finding.fits]
    if wrong:
        first = wrong[0].line.splitlines()[0].replace(f"{root}/{adopted.package}", str(adopted.path))
        more = f" (and {len(wrong) - 1} more patches)" if len(wrong) > 1 else ""
        raise SourcesError(
            f"{adopted.path} cannot be adopted as {adopted.package}: {first}{more}; bring the pinned sources, or look "
            f"at python -m recipe patches verify --against {adopted.path.parent}"
        )
