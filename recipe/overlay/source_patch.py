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

from pathlib import Path

from recipe.overlay.declaration import SOURCE, Declaration, declared_at
from recipe.overlay.errors import BadDeclaration
from recipe.overlay.target import parse_target
from recipe.own_packages import patch_packages

_FIELDS = ("target", "why", "upstream", "fingerprint", "patched", "remove_when")


def files(root: Path) -> list[Path]:
    """All `.patch` files under the `*_patches` packages of `root`, sorted."""
    return sorted(file for package in patch_packages(root) for file in package.rglob("*.patch"))


def read(file: Path, mirror: str) -> Declaration:
    """Read what a `.patch` file declares; `mirror`: the name it would have as a module.

    Raises BadDeclaration: a field missing, unknown or malformed, a target that is not in the module it mirrors.
    """
    fields: dict[str, str] = {}
    name = ""
    for number, line in enumerate(_split(file)[0].splitlines(), 1):
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
    with declared_at(str(file)):
        target = parse_target(fields["target"])
        return Declaration(
            f"{mirror}:{target.qualname}", mirror, target, SOURCE, fields["why"], fields["upstream"],
            tuple(fields["fingerprint"].split()), fields["remove_when"], file, 1,
            patched=tuple(fields["patched"].split()),
        )  # fmt: skip


def diff(file: Path) -> str:
    """The text of a `.patch` file from the first `--- ` line on."""
    return _split(file)[1]


def _split(file: Path) -> tuple[str, str]:
    head, separator, rest = file.read_text(encoding="utf-8").partition("\n--- ")
    if not separator:
        raise BadDeclaration(f"{file}: no unified diff in it: expected a header and then '--- a/...'")
    return head, f"--- {rest}"
