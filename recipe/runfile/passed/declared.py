# SPDX-License-Identifier: Apache-2.0
"""What classes and functions of the upstreams declare, read from their source: nothing of them is imported or run.

An annotation is kept as the kinds of value that it admits; what is not understood admits anything.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

Kinds = frozenset[str]
NONE, BOOL, WHOLE, NUMBER, TEXT, LIST, TABLE, ANY = (
    *("nothing (null)", "true or false", "a whole number", "a number", "text", "a list", "a table", "anything"),
)  # fmt: skip
_PLAIN = {
    **{"bool": BOOL, "int": WHOLE, "float": NUMBER, "str": TEXT, "list": LIST, "List": LIST, "tuple": LIST},
    **{"dict": TABLE, "Dict": TABLE, "None": NONE},
}


def kind_of(value: Any) -> str:
    """The kind of a value of a configuration."""
    kinds = {type(None): NONE, bool: BOOL, int: WHOLE, float: NUMBER, str: TEXT, list: LIST, dict: TABLE}
    return kinds[type(value)]


def admits(kinds: Kinds, value: Any) -> bool:
    """Whether a value is of one of the kinds; a whole number is a number, too."""
    kind = kind_of(value)
    return ANY in kinds or kind in kinds or (kind == WHOLE and NUMBER in kinds)


def in_words(kinds: Kinds) -> str:
    """The kinds for an error message.

    >>> in_words(frozenset((NONE, WHOLE)))
    'a whole number or nothing (null)'
    """
    return " or ".join(sorted(kinds, key=lambda kind: (kind == NONE, kind)))


@dataclass(frozen=True)
class _Class:
    bases: tuple[str, ...]
    fields: Mapping[str, Kinds]


def fields_of(upstream: Path, target: str) -> Mapping[str, Kinds] | None:
    """The fields of a dataclass with those of its bases, by their names; None where its source has no such class.

    Args:
        upstream: the tree of upstream sources.
        target: its full name, as in `_target_`: of a module, or of a package that takes it over from a module in it.
    """
    module, _, name = target.rpartition(".")
    return _fields(upstream, tuple(_files(upstream, module)), name)


def _fields(upstream: Path, files: tuple[Path, ...], name: str) -> Mapping[str, Kinds] | None:
    for file in files:
        found = _classes(file).get(name)
        if found is None:
            continue
        fields: dict[str, Kinds] = {}
        for base in found.bases:
            fields |= _fields(upstream, (file, *files, *_imported(upstream, file, base)), base) or {}
        return fields | dict(found.fields)
    return None


def parameters_of(file: Path, function: str) -> Mapping[str, Kinds] | None:
    """The named parameters of a function of a module, by their names; None where the file has no such function."""
    for node in _tree(file).body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name == function:
            arguments = [*node.args.args, *node.args.kwonlyargs]
            return {argument.arg: _kinds(argument.annotation) for argument in arguments}
    return None


def keywords_of(file: Path, function: str) -> frozenset[str]:
    """The keywords that calls of a function of that name are written with in a file."""
    return frozenset(
        keyword.arg
        for node in ast.walk(_tree(file))
        if isinstance(node, ast.Call) and _last_name(node.func) == function
        for keyword in node.keywords
        if keyword.arg
    )


@dataclass(frozen=True)
class Read:
    """What sources read with `X.get("name", ...)`.

    `by`: by the last name in X, each name, and whether the default is an empty table, so that what stands in it is
    handed on. `aliases`: the variables that such a name is assigned to.
    """

    by: Mapping[str, Mapping[str, bool]]
    aliases: Mapping[str, frozenset[str]]

    def called(self, name: str) -> frozenset[str]:
        """The variables that hold what is read by that name."""
        return self.aliases.get(name, frozenset())


@cache
def names_read(package: Path) -> Read:
    """What a package's sources read from their configuration."""
    by: dict[str, dict[str, bool]] = {}
    aliases: dict[str, frozenset[str]] = {}
    for file in sorted(package.rglob("*.py")):
        for node in ast.walk(_tree(file)):
            if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
                value = node.value.values[0] if isinstance(node.value, ast.BoolOp) else node.value
                if (got := _got(value)) is not None:
                    aliases[got[1]] = aliases.get(got[1], frozenset()) | {node.targets[0].id}
            elif isinstance(node, ast.Call) and (got := _got(node)) is not None:
                receiver, name = got
                table = len(node.args) > 1 and isinstance(node.args[1], ast.Dict) and not node.args[1].keys
                of_receiver = by.setdefault(receiver, {})
                of_receiver[name] = table or of_receiver.get(name, False)
    return Read(by, aliases)


def _got(node: ast.expr) -> tuple[str, str] | None:
    """Receiver and name of `X.get("name", ...)`."""
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get"):
        return None
    receiver = _last_name(node.func.value)
    if receiver is None or not node.args or not isinstance(node.args[0], ast.Constant):
        return None
    return receiver, str(node.args[0].value)


def _last_name(node: ast.expr) -> str | None:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return node.attr
    if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
        return str(node.slice.value)
    return None


@cache
def _tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


@cache
def _classes(file: Path) -> Mapping[str, _Class]:
    return {node.name: _class(node) for node in _tree(file).body if isinstance(node, ast.ClassDef)}


def _class(node: ast.ClassDef) -> _Class:
    fields = {
        line.target.id: _kinds(line.annotation)
        for line in node.body
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name) and not line.target.id.startswith("_")
    }
    return _Class(tuple(base for base in map(_last_name, node.bases) if base), fields)


def _files(upstream: Path, module: str) -> Iterator[Path]:
    place = upstream.joinpath(*module.split("."))
    if place.with_suffix(".py").is_file():
        yield place.with_suffix(".py")
    elif place.is_dir():
        yield from sorted(place.glob("*.py"))


def _imported(upstream: Path, file: Path, name: str) -> Iterator[Path]:
    """The modules that a file has a name from."""
    for node in _tree(file).body:
        if isinstance(node, ast.ImportFrom) and any(alias.name == name for alias in node.names):
            parent = file.parents[node.level - 1] if node.level else upstream
            place = parent.joinpath(*(node.module or "").split("."))
            yield from _files(place.parent, place.name)


def _kinds(annotation: ast.expr | None) -> Kinds:
    if isinstance(annotation, ast.Constant):
        if isinstance(annotation.value, str):  # written in quotes
            try:
                return _kinds(ast.parse(annotation.value, mode="eval").body)
            except SyntaxError:
                return frozenset((ANY,))
        return frozenset((NONE,)) if annotation.value is None else frozenset((ANY,))
    if isinstance(annotation, ast.BinOp):
        return _kinds(annotation.left) | _kinds(annotation.right)
    if isinstance(annotation, ast.Subscript):
        outer, inner = _last_name(annotation.value), annotation.slice
        parts = inner.elts if isinstance(inner, ast.Tuple) else [inner]
        if outer == "Optional":
            return _kinds(inner) | {NONE}
        if outer == "Union":
            return frozenset().union(*map(_kinds, parts))
        if outer == "Literal":
            return frozenset(kind_of(part.value) for part in parts if isinstance(part, ast.Constant))
        return frozenset((_PLAIN.get(str(outer), ANY),))
    name = None if annotation is None else _last_name(annotation)
    return frozenset((_PLAIN.get(str(name), ANY),))
