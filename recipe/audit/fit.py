# SPDX-License-Identifier: Apache-2.0
"""Whether the declarations fit the upstream sources in a directory, and if not, how not."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recipe.audit.declarations import Declaration, collect
from recipe.overlay import drift, fingerprints, source
from recipe.overlay.errors import MissingTarget

# Best to worst. "pinned": a source patch that is not in the file, but fits it.  "absent": the directory does not have
# the package at all, so nothing was checked.
VERDICTS = ("same", "pinned", "absent", "changed", "alias gone", "gone")
FITS = ("same", "pinned", "absent")


@dataclass(frozen=True)
class Finding:
    """What became of one target (or of one alias of it) in the sources that were looked at."""

    declaration: Declaration
    verdict: str
    line: str
    where: str = ""
    fingerprint: str = ""
    notes: tuple[str, ...] = ()

    @property
    def fits(self) -> bool:
        return self.verdict in FITS

    def as_json(self) -> dict[str, Any]:
        return {"patch": self.declaration.id, "target": str(self.declaration.target), "verdict": self.verdict,
                "where": self.where, "fingerprint": self.fingerprint, "notes": list(self.notes),
                "message": self.line}  # fmt: skip


def check(one: Declaration, roots: Iterable[Path], pinned: Iterable[Path] = (), want_patched: bool = True) -> Finding:
    """Compare a declaration with the sources under `roots`.

    pinned: directories with the sources that it was written for, to say what a change consists of.
    want_patched: a source patch must be in the file; otherwise the unpatched file fits, too.
    """
    roots, pinned = list(roots), list(pinned)
    if source.module_file(one.package, roots) is None and not any((root / one.package).is_dir() for root in roots):
        return Finding(one, "absent", f"{one.id}: {one.package} is not there")
    try:
        found = source.find_target(one.target, one.kind, roots)
    except MissingTarget as error:
        notes = tuple(f"now at {place}?" for place in _elsewhere(one, roots))
        return Finding(one, "gone", f"{one.id} ({one.where}): {error}", notes=notes)
    wanted = one.patched or one.fingerprints
    verdict = "same" if found.fingerprint in wanted else "changed"
    if verdict == "changed" and not want_patched and found.fingerprint in one.fingerprints:
        verdict = "pinned"
    if verdict == "changed":
        notes = tuple(_how(one, found, pinned))
        return Finding(one, verdict, drift.message(_Wanted(one), found), found.where, found.fingerprint, notes)
    for alias in one.aliases:
        try:
            source.find_target(alias, "alias", roots)
        except MissingTarget as error:
            line = f"{one.id} ({one.where}): alias {alias}: {error}"
            return Finding(one, "alias gone", line, found.where, found.fingerprint)
    return Finding(one, verdict, f"{one.id}: {verdict}", found.where, found.fingerprint)


class _Wanted:
    """A declaration with the fingerprints that the file must have now: for a source patch the patched ones."""

    def __init__(self, one: Declaration) -> None:
        self.id, self.where, self.target, self.kind = one.id, one.where, one.target, one.kind
        self.fingerprints = one.patched or one.fingerprints


def _how(one: Declaration, found: source.Found, pinned: list[Path]) -> Iterator[str]:
    """What changed between the pinned target and the one found: the signature, and how many lines."""
    try:
        before = source.find_target(one.target, one.kind, pinned)
    except MissingTarget:
        return
    if before.fingerprint not in one.fingerprints + one.patched:
        return
    old, new = (_signature(found.source()) for found in (before, found))
    if old != new:
        yield f"signature {old} -> {new}"
    lines = drift.diff(before, found).splitlines()[3:]
    yield f"+{sum(line.startswith('+') for line in lines)} -{sum(line.startswith('-') for line in lines)} lines"


def _signature(text: str) -> str:
    """The parameters of a function's source, or "" for anything else."""
    try:
        first = ast.parse("if 1:\n" + text if text[:1].isspace() else text).body[0]
    except SyntaxError:
        return ""
    node = first.body[0] if isinstance(first, ast.If) else first
    return f"({ast.unparse(node.args)})" if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) else ""


def _elsewhere(one: Declaration, roots: list[Path]) -> Iterator[str]:
    """Up to three other places in the package that bind the target's name, as places to look at."""
    *owner, name = one.target.qualname.split(".")
    root = next(root for root in roots if (root / one.package).is_dir())
    wanted = re.compile(rf"^\s*(?:async def|def|class) {re.escape(name)}\b|^{re.escape(name)}\s*[:=]", re.MULTILINE)
    count = 0
    for file in sorted((root / one.package).rglob("*.py")):
        text = file.read_text(encoding="utf-8", errors="replace")
        if count == 3 or (owner and name.startswith("__") and f"class {owner[-1]}" not in text):
            continue
        match = wanted.search(text)
        if match is not None:
            count += 1
            module = ".".join(file.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
            yield f"{module}:{name} (line {text.count(chr(10), 0, match.end()) + 1})"


def verify(roots: Iterable[Path]) -> list[Finding]:
    """Compare every declaration with the sources that will be run, under `roots`, and record their fingerprints."""
    findings = [check(one, roots) for one in collect()]
    fingerprints.save()
    return findings


def unchecked(findings: Iterable[Finding]) -> list[str]:
    """The packages that were not there."""
    return sorted({one.declaration.package for one in findings if one.verdict == "absent"})
