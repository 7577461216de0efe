# SPDX-License-Identifier: Apache-2.0
"""The Python modules under the `*_patches` packages, read as text, and which of one another's names they use."""

from __future__ import annotations

import ast
import functools
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from recipe.overlay import source
from recipe.overlay.target import module_name
from recipe.own_packages import patch_packages

_DOTTED = re.compile(r"\w+(\.\w+)+")


class Binding(NamedTuple):
    """A name that a module binds at its top level; without a name the whole module."""

    module: str
    name: str | None


class OwnModules:
    """The modules of the `*_patches` packages of one repository, parsed when they are asked for."""

    def __init__(self, root: Path) -> None:
        self.files = {
            module_name(file, root): file for package in patch_packages(root) for file in sorted(package.rglob("*.py"))
        }
        self.tree = functools.cache(self._parse)

    def _parse(self, module: str) -> ast.Module:
        return ast.parse(self.files[module].read_text(encoding="utf-8"), filename=str(self.files[module]))

    def nodes(self, place: Binding) -> list[ast.AST]:
        """The statements that bind the name; none when the module does not bind it."""
        tree = self.tree(place.module)
        return [tree] if place.name is None else list(source.bindings(tree.body, place.name))

    def value(self, place: Binding) -> ast.expr | None:
        """What is assigned to a name, also when the module imports it from another one of ours."""
        for node in self.nodes(place):
            if isinstance(node, ast.Assign):
                return node.value
            if isinstance(node, ast.ImportFrom):
                origins = self._imported(place.module, node)
                return self.value(origins[0]) if origins else None
        return None

    def used_by(self, module: str, node: ast.AST) -> set[Binding]:
        """The bindings that a statement of `module` uses, directly and through others.

        Followed are names, imports, also inside of functions, and texts that are the dotted name of a module of ours
        or of something in it: verl loads classes by such a text.
        """
        places: set[Binding] = set()
        waiting = list(self._named_in(module, node))
        while waiting:
            place = waiting.pop()
            nodes = [] if place in places else self.nodes(place)
            if nodes:
                places.add(place)
            waiting += [used for inner in nodes for used in self._named_in(place.module, inner)]
        return places

    def _named_in(self, module: str, node: ast.AST) -> Iterator[Binding]:
        for inner in ast.walk(node):
            if isinstance(inner, ast.Name):
                yield Binding(module, inner.id)
            elif isinstance(inner, ast.Import):
                yield from (Binding(alias.name, None) for alias in inner.names if alias.name in self.files)
            elif isinstance(inner, ast.ImportFrom):
                yield from self._imported(module, inner)
            elif isinstance(inner, ast.Constant) and isinstance(inner.value, str) and _DOTTED.fullmatch(inner.value):
                yield from filter(None, [self._at(inner.value)])

    def _imported(self, module: str, node: ast.ImportFrom) -> list[Binding]:
        """The bindings of our modules that a `from ... import ...` of `module` names."""
        is_package = self.files[module].name == "__init__.py"
        package = module if is_package else module.rpartition(".")[0]
        origin = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
        return [place for alias in node.names if (place := self._at(f"{origin}.{alias.name}")) is not None]

    def _at(self, dotted: str) -> Binding | None:
        """The binding in our modules that a dotted name means; None for any other name."""
        if dotted in self.files:
            return Binding(dotted, None)
        module, _, name = dotted.rpartition(".")
        return Binding(module, name) if module in self.files else None
