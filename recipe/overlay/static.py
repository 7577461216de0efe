# SPDX-License-Identifier: Apache-2.0
"""Read the declarations out of the mirror files without importing them, and check them against upstream sources."""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from recipe.overlay import source
from recipe.overlay.declare import check_fields
from recipe.overlay.engine import drift_message
from recipe.overlay.errors import BadDeclaration, MissingTarget
from recipe.overlay.hook import REPOSITORY, Mirror, discover
from recipe.overlay.target import MIRROR_SUFFIX, NO_KEY, Target, parse_target

MARKER = "NPU-ADAPTATION"


@dataclass(frozen=True)
class Declaration:
    """A `@patch` as it is written in a file; `first` to `last` are its lines, decorator or call included."""

    id: str
    file: Path
    first: int
    last: int
    target: Target
    kind: str
    why: str
    upstream: str
    fingerprint: str
    remove_when: str
    when: str | None
    aliases: tuple[Target, ...]
    over: tuple[str, ...]

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
            "over": list(self.over),
        }


def collect(root: Path = REPOSITORY) -> list[Declaration]:
    """All declarations under the `*_patches` packages of `root`, in file order.

    Raises BadDeclaration for one that is not at the top level of its file, has arguments that are no literals, or
    would be refused at import, and for two of one id or one target.
    """
    found = [one for mirror in discover(root) for one in _in_file(mirror)]
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
    texts: dict[str, Any] = {key: arguments.get(key) for key in ("why", "upstream", "fingerprint", "remove_when")}
    kind = arguments.get("kind", "wrap" if name is not None else "replace")
    try:
        target = parse_target(text, arguments.get("key", NO_KEY))
        aliases = tuple(parse_target(alias) for alias in arguments.get("aliases", ()))
        wrong = check_fields(target, kind, texts, mirror.name, unchecked_fingerprint=True)
    except BadDeclaration as error:
        wrong = str(error)
    if wrong:
        raise BadDeclaration(f"{where}: patch on {text}: {wrong}")
    return Declaration(
        f"{mirror.name}:{name or target.qualname}", mirror.file, call.lineno, statement.end_lineno or call.lineno,
        target, kind, **texts, when=when, aliases=aliases, over=tuple(arguments.get("over", ())),
    )  # fmt: skip


def drift(declaration: Declaration, roots: Iterable[Path]) -> list[str]:
    """What does not fit between a declaration and the upstream under `roots`: one line each, none when all fits."""
    roots = list(roots)
    lines = []
    try:
        found = source.find_target(declaration.target, declaration.kind, roots)
        if found.fingerprint != declaration.fingerprint:
            lines.append(
                drift_message(
                    declaration.id, declaration.where, str(declaration.target), declaration.fingerprint, found
                )
            )
    except MissingTarget as error:
        lines.append(f"{declaration.id} ({declaration.where}): {error}")
    for alias in declaration.aliases:
        try:
            source.find_target(alias, "alias", roots)
        except MissingTarget as error:
            lines.append(f"{declaration.id} ({declaration.where}): alias {alias}: {error}")
    return lines


def unmarked(root: Path = REPOSITORY) -> list[str]:
    """Where markers and declarations disagree, one line each.

    Every declaration carries a comment `# NPU-ADAPTATION: ...` on its lines, and every such comment under the
    `*_patches` packages stands in a declaration.
    """
    declarations = collect(root)
    lines = []
    marked: set[str] = set()
    for package in sorted(root.glob(f"?*{MIRROR_SUFFIX}")):
        for file in sorted(package.rglob("*.py")):
            text = file.read_text(encoding="utf-8")
            if MARKER not in text:
                continue
            for token in tokenize.generate_tokens(io.StringIO(text).readline):
                if token.type != tokenize.COMMENT or MARKER not in token.string:
                    continue
                line = token.start[0]
                inside = [one for one in declarations if one.file == file and one.first <= line <= one.last]
                marked.update(one.id for one in inside)
                if not inside:
                    lines.append(f"{file}:{line}: a {MARKER} comment outside of any @patch declaration")
    lines += [f"{one.where}: {one.id} has no {MARKER} comment" for one in declarations if one.id not in marked]
    return lines
