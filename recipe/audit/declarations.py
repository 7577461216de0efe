# SPDX-License-Identifier: Apache-2.0
"""Read the declarations out of the mirror files without importing them."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from recipe.audit.by_model import models_of
from recipe.audit.own_modules import Binding, OwnModules
from recipe.overlay import source_patch
from recipe.overlay.declaration import SOURCE, Declaration, declared_at, fingerprints_of
from recipe.overlay.errors import BadDeclaration
from recipe.overlay.hook import discover
from recipe.overlay.target import NO_KEY, module_name, parse_target
from recipe.own_packages import REPOSITORY

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def collect(root: Path = REPOSITORY) -> list[Declaration]:
    """All declarations under the `*_patches` packages of `root`, in file order.

    Raises BadDeclaration for one that is not at the top level of its file, has arguments that are no literals, or
    would be refused at import, and for two of one id or one target.
    """
    modules = OwnModules(root)
    declarations = [patch for mirror in discover(root) for patch in _in_module(mirror.name, modules)]
    declarations += [source_patch.read(file, module_name(file, root)) for file in source_patch.files(root)]
    declarations.sort(key=lambda patch: (patch.file.relative_to(root).parts[0], patch.file, patch.line))
    owners: dict[object, Declaration] = {}
    for patch in declarations:
        for subject in (patch.id, patch.target):
            owner = owners.setdefault(subject, patch)
            if owner is not patch:
                raise BadDeclaration(f"two patches of one {'id' if subject == patch.id else 'target'}, {subject}: "
                                     f"{owner.where} and {patch.where}")  # fmt: skip
    return declarations


def statement(patch: Declaration, tree: ast.Module) -> Definition:
    """The decorated definition in the tree of the file that declares the patch."""
    return next(
        node for node in tree.body
        if isinstance(node, Definition) and any(line.lineno == patch.line for line in node.decorator_list)
    )  # fmt: skip


def lines(patch: Declaration) -> tuple[int, int]:
    """The first and the last line of the declaration in its file: decorator and function, or the `.patch` file."""
    text = patch.file.read_text(encoding="utf-8")
    if patch.kind == SOURCE:
        return 1, text.count("\n")
    return patch.line, statement(patch, ast.parse(text)).end_lineno or patch.line


def text_of(patch: Declaration) -> str:
    """The declaration as it is written."""
    first, last = lines(patch)
    return "\n".join(patch.file.read_text(encoding="utf-8").splitlines()[first - 1 : last])


def as_json(patch: Declaration) -> dict[str, Any]:
    """The declaration in JSON types; targets as text, the file relative to the repository where it lies in it."""
    file = patch.file.relative_to(REPOSITORY) if patch.file.is_relative_to(REPOSITORY) else patch.file
    names = ("id", "line", "kind", "why", "upstream", "fingerprints", "patched", "remove_when", "otherwise", "over")
    return {name: getattr(patch, name) for name in names} | {
        "file": str(file),
        "target": str(patch.target),
        "aliases": [str(alias) for alias in patch.aliases],
        "models": models_of(patch.id),
    }


def _calls(nodes: Iterable[ast.AST], name: str) -> list[ast.Call]:
    """The calls of the function `name` among the nodes."""
    return [node for node in nodes
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name]  # fmt: skip


def _in_module(mirror: str, modules: OwnModules) -> Iterator[Declaration]:
    tree, file = modules.tree(mirror), modules.files[mirror]
    elsewhere = _calls(ast.walk(tree), "patch")
    for definition in (node for node in tree.body if isinstance(node, Definition)):
        for call in _calls(definition.decorator_list, "patch"):
            elsewhere.remove(call)
            with declared_at(f"{file}:{call.lineno}"):
                yield _read(definition.name, mirror, call, modules)
    for call in elsewhere:
        raise BadDeclaration(f"{file}:{call.lineno}: declare patches at the file's top level; use when=")


def _read(name: str, mirror: str, call: ast.Call, modules: OwnModules) -> Declaration:
    conditions = [keyword.value for keyword in call.keywords if keyword.arg == "when"]
    try:
        text = ast.literal_eval(call.args[0]) if call.args else ""
        literals = [(keyword.arg, keyword.value) for keyword in call.keywords if keyword.arg != "when"]
        fields: dict[str | None, Any] = {argument: ast.literal_eval(value) for argument, value in literals}
    except ValueError:
        raise BadDeclaration("the arguments of @patch must be literals: tools read them") from None
    return Declaration(
        f"{mirror}:{name}", mirror, parse_target(text, fields.get("key", NO_KEY)), fields.get("kind", "wrap"),
        fields.get("why", ""), fields.get("upstream", ""), fingerprints_of(fields.get("fingerprint")),
        fields.get("remove_when", ""), modules.files[mirror], call.lineno,
        _otherwise(conditions[0], mirror, modules) if conditions else "",
        tuple(map(parse_target, fields.get("aliases", ()))), tuple(fields.get("over", ())),
    )  # fmt: skip


def _otherwise(condition: ast.expr, module: str, modules: OwnModules) -> str:
    """The text of a `Condition(...)`."""
    value = modules.value(Binding(module, condition.id)) if isinstance(condition, ast.Name) else condition
    for call in _calls([value] if value else [], "Condition"):
        for keyword in call.keywords:
            if keyword.arg == "otherwise" and isinstance(keyword.value, ast.Constant) and keyword.value.value:
                return str(keyword.value.value)
    raise BadDeclaration(
        "when= must be a Condition(function, otherwise='...') that is written there, or the name of one that is in "
        "this file or imported from another of ours"
    )
