# SPDX-License-Identifier: Apache-2.0
"""The engine stands below all other rooms: it imports none of them, not even late."""

from __future__ import annotations

import ast
from pathlib import Path

import recipe.overlay
from recipe.own_packages import own_packages

ROOM = Path(recipe.overlay.__file__).parent
BELOW = {"recipe.overlay", "recipe.own_packages", "recipe.upstreams"}


def imported(file: Path) -> set[str]:
    """The modules that a file imports anywhere, the functions in it included."""
    nodes = list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return plain | {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)}


def test_the_engine_imports_none_of_the_other_rooms() -> None:
    modules = {module for file in ROOM.glob("*.py") for module in imported(file)}
    own = {module for module in modules if module.partition(".")[0] in own_packages()}
    assert {".".join(module.split(".")[:2]) for module in own} == BELOW
