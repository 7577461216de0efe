# SPDX-License-Identifier: Apache-2.0
"""Read the declarations out of the mirror files without importing them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from recipe.overlay import source_patch
from recipe.overlay.declare import check_fields, fingerprints_of
from recipe.overlay.errors import BadDeclaration
from recipe.overlay.hook import REPOSITORY, Mirror, discover
from recipe.overlay.target import NO_KEY, Target, parse_target


@dataclass(frozen=True)
class Declaration:
    """A `@patch` as it is written in a file, lines `first` to `last`, decorator or call included; or a `.patch` file.

    fingerprints: of the target as pinned.  patched: of the target with the source patch in it, same order.
    """

    id: str
    file: Path
    first: int
    last: int
    target: Target
    kind: str
    why: str
    upstream: str
    fingerprints: tuple[str, ...]
    remove_when: str
    when: str | None = None
    aliases: tuple[Target, ...] = ()
    over: tuple[str, ...] = ()
    patched: tuple[str, ...] = ()

    @property
    def package(self) -> str:
        """The upstream package: verl, vllm, ..."""
        return self.target.module.partition(".")[0]

    @property
    def where(self) -> str:
        return f"{self.file}:{self.first}"

    def source(self) -> str:
        return "\n".join(self.file.read_text(encoding="utf-8").splitlines()[self.first - 1 : self.last])

    def as_json(self) -> dict[str, Any]:
        """The declaration in JSON types; targets as text, the file relative to the repository where it lies in it."""
        file = self.file.relative_to(REPOSITORY) if self.file.is_relative_to(REPOSITORY) else self.file
        return asdict(self) | {
            "file": str(file),
            "target": str(self.target),
            "aliases": [str(alias) for alias in self.aliases],
        }


def collect(root: Path = REPOSITORY) -> list[Declaration]:
    """All declarations under the `*_patches` packages of `root`, in file order.

    Raises BadDeclaration for one that is not at the top level of its file, has arguments that are no literals, or
    would be refused at import, and for two of one id or one target.
    """
    found = [one for mirror in discover(root) for one in _in_file(mirror)]
    found += [_of_source_patch(file, root) for file in source_patch.files(root)]
    found.sort(key=lambda one: (one.file.relative_to(root).parts[0], one.file, one.first))
    places: dict[object, Declaration] = {}
    for one in found:
        for place in (one.id, one.target):
            other = places.setdefault(place, one)
            if other is not one:
                raise BadDeclaration(f"two patches of one {'id' if place == one.id else 'target'}, {place}: "
                                     f"{other.where} and {one.where}")  # fmt: skip
    return found


def _call(node: ast.AST) -> ast.Call | None:
    """`node` as a call of `patch(...)` or `patch.value(...)`."""
    if isinstance(node, ast.Call):
        name = node.func.value if isinstance(node.func, ast.Attribute) and node.func.attr == "value" else node.func
        if isinstance(name, ast.Name) and name.id == "patch":
            return node
    return None


def _in_file(mirror: Mirror) -> Iterator[Declaration]:
    tree = ast.parse(mirror.file.read_text(encoding="utf-8"), filename=str(mirror.file))
    calls = {id(call) for node in ast.walk(tree) if (call := _call(node)) is not None}
    for statement in tree.body:
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            for decorator in statement.decorator_list:
                call = _call(decorator)
                if call is not None:
                    calls.discard(id(call))
                    yield _declaration(mirror, call, statement, statement.name)
        elif isinstance(statement, ast.Expr) and (call := _call(statement.value)) is not None:
            calls.discard(id(call))
            yield _declaration(mirror, call, statement, None)
    for node in ast.walk(tree):
        if id(node) in calls and isinstance(node, ast.Call):
            raise BadDeclaration(f"{mirror.file}:{node.lineno}: declare patches at the file's top level; use when=")


def _declaration(mirror: Mirror, call: ast.Call, statement: ast.stmt, name: str | None) -> Declaration:
    where = f"{mirror.file}:{call.lineno}"
    arguments: dict[str, Any] = {}
    when: str | None = None
    try:
        text = ast.literal_eval(call.args[0]) if call.args else ""
        for keyword in call.keywords:
            if keyword.arg == "when":
                when = ast.unparse(keyword.value)
            elif keyword.arg is None:
                raise ValueError("**")
            else:
                arguments[keyword.arg] = ast.literal_eval(keyword.value)
    except ValueError:
        raise BadDeclaration(f"{where}: the arguments of @patch must be literals: tools read them") from None
    fields: dict[str, Any] = {key: arguments.get(key) for key in ("why", "upstream", "remove_when")}
    kind = arguments.get("kind", "wrap" if name is not None else "replace")
    try:
        target = parse_target(text, arguments.get("key", NO_KEY))
        aliases = tuple(parse_target(alias) for alias in arguments.get("aliases", ()))
        wrong = check_fields(target, kind, fields, mirror.name)
    except BadDeclaration as error:
        wrong = str(error)
    if wrong:
        raise BadDeclaration(f"{where}: patch on {text}: {wrong}")
    return Declaration(
        f"{mirror.name}:{name or target.qualname}", mirror.file, call.lineno, statement.end_lineno or call.lineno,
        target, kind, fields["why"], fields["upstream"], fingerprints_of(arguments.get("fingerprint")),
        fields["remove_when"], when, aliases, tuple(arguments.get("over", ())),
    )  # fmt: skip


def _of_source_patch(file: Path, root: Path) -> Declaration:
    one = source_patch.read(file, root)
    last = file.read_text(encoding="utf-8").count("\n")
    return Declaration(
        one.id, file, 1, last, one.target, "source", one.why, one.upstream, one.fingerprints, one.remove_when,
        patched=one.patched,
    )  # fmt: skip
