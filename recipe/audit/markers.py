# SPDX-License-Identifier: Apache-2.0
"""`grep NPU-ADAPTATION` and the declarations name the same places."""

from __future__ import annotations

import io
import tokenize
from collections.abc import Iterator
from pathlib import Path

from recipe.audit.declarations import collect
from recipe.overlay.hook import REPOSITORY
from recipe.overlay.target import MIRROR_SUFFIX

MARKER = "NPU-ADAPTATION"


def unmarked(root: Path = REPOSITORY) -> list[str]:
    """Where markers and declarations disagree, one line each.

    Every declaration carries a comment `# NPU-ADAPTATION: ...` on its lines (a source patch on a line that it adds),
    and every such comment under the `*_patches` packages stands in a declaration.
    """
    declarations = collect(root)
    lines = []
    marked: set[str] = set()
    for package in sorted(root.glob(f"?*{MIRROR_SUFFIX}")):
        for file in sorted([*package.rglob("*.py"), *package.rglob("*.patch")]):
            for line in _marked_lines(file):
                inside = [one for one in declarations if one.file == file and one.first <= line <= one.last]
                marked.update(one.id for one in inside)
                if not inside:
                    lines.append(f"{file}:{line}: a {MARKER} comment outside of any @patch declaration")
    lines += [f"{one.where}: {one.id} has no {MARKER} comment" for one in declarations if one.id not in marked]
    return lines


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
