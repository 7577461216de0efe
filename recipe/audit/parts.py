# SPDX-License-Identifier: Apache-2.0
"""Which of our modules take part in which change: all that a declaration uses, directly or through others."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from pathlib import Path

from recipe.audit.declarations import statement
from recipe.audit.own_modules import OwnModules
from recipe.overlay.declaration import SOURCE, Declaration


def served(declarations: Iterable[Declaration], root: Path) -> dict[Path, list[Declaration]]:
    """The files under the `*_patches` packages that declarations of other files use, each with those declarations."""
    modules = OwnModules(root)
    parts: dict[Path, list[Declaration]] = {}
    for patch in declarations:
        if patch.kind != SOURCE:
            places = modules.used_by(patch.mirror, statement(patch, modules.tree(patch.mirror)))
            for module in {place.module for place in places} - {patch.mirror}:
                parts.setdefault(modules.files[module], []).append(patch)
    return dict(sorted(parts.items()))


def apart(declarations: Iterable[Declaration], parts: Iterable[Path], root: Path) -> dict[Path, str]:
    """The files with code that take no part in any declared change, each with the first line of its docstring."""
    modules = OwnModules(root)
    part_of_a_change = {*(patch.file for patch in declarations), *parts}
    texts = {}
    for module, file in modules.files.items():
        tree = modules.tree(module)
        if file not in part_of_a_change and any(not isinstance(node, ast.Expr) for node in tree.body):
            texts[file] = (ast.get_docstring(tree) or "").partition("\n")[0]
    return texts
