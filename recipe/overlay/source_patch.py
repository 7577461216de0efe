# SPDX-License-Identifier: Apache-2.0
"""Source patches: the changes that no import-time patch can make, as unified diffs with a header that declares them.

`pkg_patches/a/b.patch` changes `pkg/a/b.py`.  `python -m recipe sync` applies it to the copied-in source; a running
process only checks that what it imported is the patched source.  The header, up to the first `--- ` line, has the
fields of `@patch`, continuation lines begin with a space:

    Target: pkg.a.b:Class            what the diff changes; nothing outside of it
    Why: what goes wrong without it
    Upstream: pkg==1.2
    Fingerprint: sha256:...          of the target as pinned; several when the profiles pin different sources
    Patched: sha256:...              of the target with the diff applied; as many, in the same order
    Remove-when: ...
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from recipe.overlay.errors import BadDeclaration
from recipe.overlay.target import MIRROR_SUFFIX, Target, mirrored, parse_target

_FIELDS = ("target", "why", "upstream", "fingerprint", "patched", "remove_when")


@dataclass(frozen=True)
class SourcePatch:
    """One `.patch` file; `diff` is its text from the first `--- ` line on, which is line `diff_line` of the file."""

    id: str
    file: Path
    target: Target
    why: str
    upstream: str
    fingerprints: tuple[str, ...]
    patched: tuple[str, ...]
    remove_when: str
    diff: str
    diff_line: int


def files(root: Path) -> list[Path]:
    """All `.patch` files under the `*_patches` packages of `root`, sorted."""
    return sorted(file for package in root.glob(f"?*{MIRROR_SUFFIX}") for file in package.rglob("*.patch"))


def module_name(file: Path, root: Path) -> str:
    """The dotted name a file under a `*_patches` package of `root` has or would have as a module."""
    parts = file.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def read(file: Path, root: Path | None = None) -> SourcePatch:
    """Read a `.patch` file under `root` (by default the directory that holds its `*_patches` package).

    Raises BadDeclaration: a field missing, unknown or malformed, a target that is not in the module it mirrors.
    """
    if root is None:
        root = next(parent.parent for parent in file.parents if parent.name.endswith(MIRROR_SUFFIX))
    head, separator, rest = file.read_text(encoding="utf-8").partition("\n--- ")
    if not separator:
        raise BadDeclaration(f"{file}: no unified diff in it: expected a header and then '--- a/...'")
    fields: dict[str, str] = {}
    name = ""
    for number, line in enumerate(head.splitlines(), 1):
        if line.startswith((" ", "\t")) and name:
            fields[name] += " " + line.strip()
        elif line.strip():
            key, colon, value = line.partition(":")
            name = key.strip().lower().replace("-", "_")
            if not colon or name not in _FIELDS or name in fields:
                raise BadDeclaration(f"{file}:{number}: {line!r}: expected each of Target, Why, Upstream, Fingerprint, "
                                     "Patched, Remove-when once")  # fmt: skip
            fields[name] = value.strip()
    missing = [key for key in _FIELDS if not fields.get(key)]
    if missing:
        raise BadDeclaration(f"{file}: the header has no {', '.join(missing)}")
    target, mirror = parse_target(fields["target"]), module_name(file, root)
    if target.has_key or target.module != mirrored(mirror):
        raise BadDeclaration(f"{file}: the target is {target}, but this file mirrors {mirrored(mirror)}")
    pinned, patched = tuple(fields["fingerprint"].split()), tuple(fields["patched"].split())
    if len(pinned) != len(patched):
        raise BadDeclaration(f"{file}: {len(pinned)} Fingerprint and {len(patched)} Patched: expected as many")
    return SourcePatch(
        f"{mirror}:{target.qualname}", file, target, fields["why"], fields["upstream"], pinned, patched,
        fields["remove_when"], "--- " + rest, head.count("\n") + 2,
    )  # fmt: skip
