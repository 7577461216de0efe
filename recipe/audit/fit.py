# SPDX-License-Identifier: Apache-2.0
"""Whether the declarations fit the upstream sources in a directory, and what has changed where they do not."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recipe.audit.declarations import collect
from recipe.overlay import drift, fingerprints, source
from recipe.overlay.declaration import Declaration
from recipe.overlay.errors import MissingTarget

# Best to worst. "pinned": a source patch that is not in the file, but fits it.  "absent": the directory does not have
# the package at all, so nothing was checked.
VERDICTS = ("same", "pinned", "absent", "changed", "alias gone", "gone")
FITS = ("same", "pinned", "absent")


@dataclass(frozen=True)
class Fit:
    """How one declaration fits the sources that were looked at; `line` says it in words."""

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


def check(patch: Declaration, roots: Iterable[Path], pinned: Iterable[Path] = (), want_patched: bool = True) -> Fit:
    """Compare a declaration with the sources under `roots`.

    pinned: directories with the sources that it was written for, to say what a change consists of.
    want_patched: a source patch must be in the file; otherwise the unpatched file fits, too.
    """
    roots, pinned = list(roots), list(pinned)
    if source.module_file(patch.package, roots) is None and not any((root / patch.package).is_dir() for root in roots):
        return Fit(patch, "absent", f"{patch.id}: {patch.package} is not there")
    try:
        excerpt = source.find_target(patch.target, patch.kind, roots)
    except MissingTarget as error:
        notes = tuple(f"now at {place}?" for place in _elsewhere(patch, roots))
        return Fit(patch, "gone", f"{patch.id} ({patch.where}): {error}", notes=notes)
    verdict = "same" if excerpt.fingerprint in patch.expected else "changed"
    if verdict == "changed" and not want_patched and excerpt.fingerprint in patch.fingerprints:
        verdict = "pinned"
    if verdict == "changed":
        notes = tuple(_how(patch, excerpt, pinned))
        return Fit(patch, verdict, drift.message(patch, excerpt), excerpt.where, excerpt.fingerprint, notes)
    for alias in patch.aliases:
        try:
            source.find_target(alias, "alias", roots)
        except MissingTarget as error:
            line = f"{patch.id} ({patch.where}): alias {alias}: {error}"
            return Fit(patch, "alias gone", line, excerpt.where, excerpt.fingerprint)
    return Fit(patch, verdict, f"{patch.id}: {verdict}", excerpt.where, excerpt.fingerprint)


def _how(patch: Declaration, after: source.Excerpt, pinned: list[Path]) -> Iterator[str]:
    """What has changed since the pinned target: the signature, and how many lines."""
    try:
        before = source.find_target(patch.target, patch.kind, pinned)
    except MissingTarget:
        return
    if before.fingerprint not in patch.fingerprints + patch.patched:
        return
    old, new = _signature(before.source()), _signature(after.source())
    if old != new:
        yield f"signature {old} -> {new}"
    lines = drift.diff(before, after).splitlines()[3:]
    yield f"+{sum(line.startswith('+') for line in lines)} -{sum(line.startswith('-') for line in lines)} lines"


def _signature(text: str) -> str:
    """The parameters of a function's source, or "" for anything else."""
    try:
        first = ast.parse("if 1:\n" + text if text[:1].isspace() else text).body[0]
    except SyntaxError:
        return ""
    node = first.body[0] if isinstance(first, ast.If) else first
    return f"({ast.unparse(node.args)})" if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) else ""


def _elsewhere(patch: Declaration, roots: list[Path]) -> Iterator[str]:
    """Up to three other places in the package that define the target's name, where it may have moved to."""
    *owner, name = patch.target.qualname.split(".")
    root = next(root for root in roots if (root / patch.package).is_dir())
    wanted = re.compile(rf"^\s*(?:async def|def|class) {re.escape(name)}\b|^{re.escape(name)}\s*[:=]", re.MULTILINE)
    count = 0
    for file in sorted((root / patch.package).rglob("*.py")):
        text = file.read_text(encoding="utf-8", errors="replace")
        if count == 3 or (owner and name.startswith("__") and f"class {owner[-1]}" not in text):
            continue
        match = wanted.search(text)
        if match is not None:
            count += 1
            module = ".".join(file.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
            yield f"{module}:{name} (line {text.count(chr(10), 0, match.end()) + 1})"


def verify(roots: Iterable[Path]) -> list[Fit]:
    """Compare every declaration with the sources that will be run, under `roots`, and record their fingerprints."""
    findings = [check(patch, roots) for patch in collect()]
    fingerprints.save()
    return findings


def unchecked(findings: Iterable[Fit]) -> list[str]:
    """The packages that were not there."""
    return sorted({finding.declaration.package for finding in findings if finding.verdict == "absent"})
