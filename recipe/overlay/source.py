# SPDX-License-Identifier: Apache-2.0
"""Find a target in an upstream's source file, without importing it, and take its fingerprint.

The fingerprint is the SHA-256 of the target's syntax tree: every node type and every value in order, without
positions, docstrings, type comments or expression contexts.  Comments, formatting and docstrings therefore do not
change it; anything that is executed does: names, defaults, annotations, decorators, nested functions, members.
It is the same under every Python from 3.10 on.  All statements of one scope that bind the name belong to the target
(a property with its setter, both branches of an `if`, a registry's assignment).
"""

from __future__ import annotations

import ast
import hashlib
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from recipe.overlay import fingerprints
from recipe.overlay.errors import MissingTarget
from recipe.overlay.target import Target
from recipe.upstreams import upstream_tree

_IGNORED_FIELDS = frozenset({"ctx", "kind", "type_comment", "type_ignores"})
_SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_WITH_DOCSTRING = (*_SCOPES, ast.Module)


@dataclass(frozen=True)
class Excerpt:
    """A target in the content of a file: its fingerprint and the lines (1-based, inclusive) of its statements.

    plain: all are functions or classes without decorators, so that a live object can be compared with them.
    """

    file: Path
    content: bytes
    fingerprint: str
    lines: tuple[tuple[int, int], ...]
    plain: bool

    @property
    def where(self) -> str:
        return f"{self.file}:{self.lines[0][0]}"

    def source(self) -> str:
        """The target's text as it stands in the file."""
        text = self.content.decode("utf-8").splitlines()
        return "\n".join("\n".join(text[first - 1 : last]) for first, last in self.lines)


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _joined(values: Iterable[ast.expr]) -> Iterator[ast.expr]:
    """The parts of an f-string with neighbouring constants merged (Pythons differ in how they split them)."""
    text = ""
    for value in values:
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            text += value.value
            continue
        if text:
            yield ast.Constant(text)
            text = ""
        yield value
    if text:
        yield ast.Constant(text)


def _tokens(node: object) -> Iterator[str]:
    """`node` as a flat, unambiguous sequence of strings; empty and absent fields are left out."""
    if isinstance(node, ast.AST):
        yield f"({type(node).__name__}"
        for field, value in ast.iter_fields(node):
            if field in _IGNORED_FIELDS or (value is None and not isinstance(node, ast.Constant)) or value == []:
                continue
            if field == "body" and isinstance(node, _WITH_DOCSTRING) and _is_docstring(node.body[0]):
                value = value[1:]
            elif field == "values" and isinstance(node, ast.JoinedStr):
                value = list(_joined(node.values))
            yield f"{field}="
            yield from _tokens(value)
        yield ")"
    elif isinstance(node, list):
        yield "["
        for item in node:
            yield from _tokens(item)
        yield "]"
    else:
        # Not repr(), which depends on the Unicode tables of the running Python.
        yield f"{type(node).__name__}:{node!a}"


def fingerprint(nodes: Iterable[ast.AST]) -> str:
    """`sha256:<64 hex digits>` over the normalised syntax trees of `nodes`."""
    digest = hashlib.sha256()
    for node in nodes:
        digest.update("\0".join(_tokens(node)).encode("utf-8"))
        digest.update(b"\0\0")
    return f"sha256:{digest.hexdigest()}"


def _names(target: ast.expr) -> Iterator[str]:
    if isinstance(target, ast.Name):
        yield target.id
    elif isinstance(target, (ast.Tuple, ast.List)):
        for item in target.elts:
            yield from _names(item)
    elif isinstance(target, ast.Starred):
        yield from _names(target.value)


def _binds(statement: ast.stmt, name: str) -> ast.AST | None:
    """The node by which `statement` itself (not what it contains) binds `name`, else None."""
    if isinstance(statement, _SCOPES):
        return statement if statement.name == name else None
    if isinstance(statement, ast.Assign):
        return statement if any(name in _names(target) for target in statement.targets) else None
    if isinstance(statement, (ast.AnnAssign, ast.AugAssign)):
        return statement if name in _names(statement.target) else None
    if isinstance(statement, (ast.Import, ast.ImportFrom)):
        for alias in statement.names:
            if (alias.asname or alias.name.partition(".")[0]) == name:
                only = (
                    ast.ImportFrom(statement.module, [alias], statement.level)
                    if isinstance(statement, ast.ImportFrom)
                    else ast.Import([alias])
                )
                return ast.copy_location(only, statement)
    return None


def bindings(body: Iterable[ast.stmt], name: str) -> Iterator[ast.AST]:
    """All nodes in this scope, in order, that bind `name`; descends into if, try, with, loops, not into scopes."""
    for statement in body:
        node = _binds(statement, name)
        if node is not None:
            yield node
        elif not isinstance(statement, _SCOPES):
            for _, value in ast.iter_fields(statement):
                if not isinstance(value, list):
                    continue
                for item in value:
                    if isinstance(item, ast.stmt):
                        yield from bindings([item], name)
                    elif isinstance(item, (ast.ExceptHandler, ast.match_case)):
                        yield from bindings(item.body, name)


def _lines(node: ast.AST) -> tuple[int, int]:
    if isinstance(node, ast.Module):
        return (1, max(1, max((s.end_lineno or 1 for s in node.body), default=1)))
    first = node.lineno  # type: ignore[attr-defined]  # every statement has a position
    for decorator in getattr(node, "decorator_list", ()):
        first = min(first, decorator.lineno)
    return (first, node.end_lineno)  # type: ignore[attr-defined]  # ditto


_parsed: dict[bytes, ast.Module] = {}


def parse(content: bytes, file: Path) -> ast.Module:
    """The syntax tree of a file; the last few are kept, so that the patches of one mirror parse their upstream once."""
    if content not in _parsed:
        if len(_parsed) > 7:
            _parsed.pop(next(iter(_parsed)))
        _parsed[content] = ast.parse(content, filename=str(file))
    return _parsed[content]


def find(file: Path, qualname: str | None) -> Excerpt:
    """Find `qualname` (the whole file when None) in `file`; MissingTarget names the file and the part not found.

    Finds in a file of the same content are remembered; see `recipe.overlay.fingerprints`.
    """
    content = file.read_bytes()
    known = fingerprints.recall(content, qualname)
    if known is not None:
        return Excerpt(file, content, *known)
    excerpt = find_in(content, file, qualname)
    fingerprints.remember(content, qualname, (excerpt.fingerprint, excerpt.lines, excerpt.plain))
    return excerpt


def find_in(content: bytes, file: Path, qualname: str | None) -> Excerpt:
    """As `find`, in `content`; `file` is only for messages."""
    nodes: list[ast.AST] = [parse(content, file)]
    scope_name = ""
    for part in qualname.split(".") if qualname else ():
        scopes = [node for node in nodes if isinstance(node, (ast.Module, ast.ClassDef))]
        nodes = [node for scope in scopes for node in bindings(scope.body, part)]
        if not nodes:
            inside = f" in class {scope_name}" if scope_name else ""
            raise MissingTarget(f"{file} has no {part!r}{inside} (looking for {qualname})")
        scope_name = f"{scope_name}.{part}" if scope_name else part
    plain = all(isinstance(node, _SCOPES) and not node.decorator_list for node in nodes)
    return Excerpt(file, content, fingerprint(nodes), tuple(_lines(node) for node in nodes), plain)


def module_file(module: str, roots: Iterable[Path]) -> Path | None:
    """The source file of `module` under the first of `roots` that has it, found without importing anything."""
    for root in roots:
        base = root.joinpath(*module.split("."))
        for candidate in (base / "__init__.py", base.with_name(base.name + ".py")):
            if candidate.is_file():
                return candidate
    return None


def find_target(target: Target, kind: str | None, roots: Iterable[Path]) -> Excerpt:
    """Find a target under `roots` (directories that hold packages).

    kind "submodule" takes the whole file of the submodule.  With kind None, `package:name` counts as a submodule
    when the package binds no such name but holds a module of it.
    """
    roots = list(roots)
    if kind == "submodule":
        return find(_file_of(target.submodule, target, roots), None)
    file = _file_of(target.module, target, roots)
    try:
        return find(file, target.qualname)
    except MissingTarget:
        submodule = module_file(target.submodule, roots) if kind is None and not target.has_key else None
        if submodule is None:
            raise
        return find(submodule, None)


def _file_of(module: str, target: Target, roots: list[Path]) -> Path:
    file = module_file(module, roots)
    if file is None:
        looked = ", ".join(map(str, roots[:3])) + (", ..." if len(roots) > 3 else "")
        raise MissingTarget(f"{target}: no source of module {module} in {looked}; is upstream/ in place?")
    return file


def default_roots(repository: Path) -> list[Path]:
    """Where upstreams are looked for: `upstream_tree`, then the import path."""
    own = upstream_tree(repository)
    path = [Path(entry) for entry in sys.path if entry]
    return ([own] if own.is_dir() else []) + path
