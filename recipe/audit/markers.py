# SPDX-License-Identifier: Apache-2.0
"""`grep NPU-ADAPTATION` and the declarations name the same places."""

from __future__ import annotations

import io
import tokenize
from collections.abc import Iterator
from pathlib import Path

from recipe.audit.declarations import collect, lines
from recipe.audit.parts import served
from recipe.overlay.declaration import Declaration
from recipe.own_packages import REPOSITORY, patch_packages

MARKER = "NPU-ADAPTATION"


def unmarked(root: Path = REPOSITORY) -> list[str]:
    """Where markers and declarations disagree, one line each.

    Every declaration carries a comment `# NPU-ADAPTATION: ...` on its lines (a source patch on a line that it adds),
    and so does every module that a declaration uses; every such comment under the `*_patches` packages stands in a
    declaration or in a module that one uses.
    """
    declarations = collect(root)
    parts = served(declarations, root)
    disagreements = []
    marked: set[Declaration | Path] = set()
    for package in patch_packages(root):
        for file in sorted([*package.rglob("*.py"), *package.rglob("*.patch")]):
            extents = {patch: lines(patch) for patch in declarations if patch.file == file}
            for line in _marked_lines(file):
                holders = [patch for patch, (first, last) in extents.items() if first <= line <= last]
                marked.update(holders, [file])
                if not holders and file not in parts:
                    disagreements.append(f"{file}:{line}: a {MARKER} comment in nothing that a @patch declaration uses")
    disagreements += [
        f"{file}:1: no {MARKER} comment in a module that {', '.join(patch.id for patch in patches)} uses"
        for file, patches in parts.items() if file not in marked
    ]  # fmt: skip
    return disagreements + [
        f"{patch.where}: {patch.id} has no {MARKER} comment" for patch in declarations if patch not in marked
    ]


def _marked_lines(file: Path) -> Iterator[int]:
    text = file.read_text(encoding="utf-8")
    if MARKER not in text:
        return
    if file.suffix == ".patch":
        for number, line in enumerate(text.splitlines(), 1):
            if line.startswith("+") and f"# {MARKER}" in line:
                yield number
        return
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT and MARKER in token.string:
            yield token.start[0]
