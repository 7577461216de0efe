# SPDX-License-Identifier: Apache-2.0
"""Mutate the upstream of every patch and see that each mutation is refused, with the right message.

For every fingerprinted target, on a copy of its file: the target renamed, its signature changed, one line of its body
changed; each must be refused.  The file reformatted with comments and docstrings taken out or put in must be accepted.
Exits 1 when a mutation gets through, or a harmless change does not.

    python benchmarks/drift.py [--json] [--upstream DIR]
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from recipe.audit import fit  # noqa: E402  (runs as a script, from anywhere)
from recipe.audit.declarations import collect  # noqa: E402
from recipe.overlay import Declaration, source  # noqa: E402

Statements = list[ast.stmt]
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def targets(tree: ast.Module, patch: Declaration) -> Statements:
    """The statements of `tree` that define the target, or whose value it is an entry of."""
    nodes: list[ast.AST] = [tree]
    for part in patch.target.qualname.split("."):
        scopes = [node for node in nodes if isinstance(node, (ast.Module, ast.ClassDef))]
        nodes = [node for scope in scopes for node in source.bindings(scope.body, part)]
    return [node for node in nodes if isinstance(node, ast.stmt)]


def imports(tree: ast.Module, name: str) -> Iterator[tuple[ast.ImportFrom, ast.alias]]:
    """Where `tree` gets the target from another module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            yield from ((node, alias) for alias in node.names if (alias.asname or alias.name) == name)


def renamed(tree: ast.Module, patch: Declaration) -> str | None:
    """The target is called something else: nobody would call the patch."""
    for _, alias in imports(tree, patch.target.qualname):
        alias.asname = f"{alias.name}_v2"
    for node in targets(tree, patch):
        if isinstance(node, _DEFINITIONS):
            node.name += "_v2"
        else:
            for name in ast.walk(node):
                if isinstance(name, ast.Name) and name.id == patch.target.qualname:
                    name.id += "_v2"
    return "has no"


def other_signature(tree: ast.Module, patch: Declaration) -> str | None:
    """The target takes one parameter more; a class: its first method does."""
    for node in targets(tree, patch):
        functions = [inner for inner in ast.walk(node) if isinstance(inner, (ast.FunctionDef, ast.AsyncFunctionDef))]
        if functions:
            functions[0].args.kwonlyargs.append(ast.arg("added_upstream"))
            functions[0].args.kw_defaults.append(ast.Constant(None))
            return "has changed"
    return None


def other_line(tree: ast.Module, patch: Declaration) -> str | None:
    """The last statement of the target is another; a value is another; an import is from elsewhere."""
    for statement, _ in imports(tree, patch.target.qualname):
        statement.module = f"{statement.module}.moved"
        return "has changed"
    for node in targets(tree, patch):
        if not isinstance(node, _DEFINITIONS):
            if not isinstance(node, (ast.Assign, ast.AnnAssign)):
                continue
            node.value = ast.Call(ast.Name("dict", ast.Load()), [], [])
            return "has changed"
        node.body[-1] = ast.If(ast.Name("__debug__", ast.Load()), [node.body[-1]], [])
        return "has changed"
    return None


def reformatted(tree: ast.Module, patch: Declaration) -> str | None:
    """Other spacing, other quotes, no comments, other docstrings."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and ast.get_docstring(node) is None:
            node.body.insert(0, ast.Expr(ast.Constant("A docstring that was not there.")))
    return None


def submodule_line(tree: ast.Module, patch: Declaration) -> str | None:
    tree.body.append(ast.Assign([ast.Name("added_upstream", ast.Store())], ast.Constant(1), lineno=1))
    return "has changed"


MUTATIONS: dict[str, Callable[[ast.Module, Declaration], str | None]] = {
    "renamed": renamed, "signature": other_signature, "body": other_line, "reformatted": reformatted,
}  # fmt: skip


def try_one(patch: Declaration, name: str, upstream: Path) -> str:
    """ "refused", "accepted", "-" (there is nothing of the kind to change), or what went wrong."""
    submodule = patch.kind == "submodule"
    module = patch.target.submodule if submodule else patch.target.module
    file = source.module_file(module, [upstream])
    assert file is not None
    tree = ast.parse(file.read_text(encoding="utf-8"))
    mutate = MUTATIONS[name]
    if submodule:
        mutate = {"renamed": renamed, "reformatted": reformatted}.get(name, submodule_line)
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch, file.relative_to(upstream))
        copy.parent.mkdir(parents=True)
        if submodule and name == "renamed":
            copy, message = copy.with_name("renamed.py"), "no source of module"
        else:
            expected = mutate(tree, patch)
            message = expected or ""
            if patch.kind == "source" and message == "has changed":
                message = "is not the patched source"
            if expected is None and name != "reformatted":
                return "-"
        copy.write_text(ast.unparse(ast.fix_missing_locations(tree)), encoding="utf-8")
        finding = fit.check(patch, [Path(scratch)])
    refused = finding.verdict in ("changed", "gone")
    if name == "reformatted":
        return "REFUSED" if refused else "accepted"
    if not refused:
        return "GOT THROUGH"
    names_all = patch.id in finding.line and message in finding.line and str(copy if name != "renamed" else "") in (
        finding.line
    )  # fmt: skip
    return "refused" if names_all else f"WRONG MESSAGE: {finding.line}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    parser.add_argument("--upstream", type=Path, help="the pinned sources (default: $RECIPE_UPSTREAM or upstream/)",
                        default=Path(os.environ.get("RECIPE_UPSTREAM") or REPOSITORY / "upstream"))  # fmt: skip
    options = parser.parse_args()
    patches = [patch for patch in collect() if (options.upstream / patch.package).is_dir()]
    rows = {patch.id: {name: try_one(patch, name, options.upstream) for name in MUTATIONS} for patch in patches}
    bad = [f"{patch}, {name}: {result}" for patch, row in rows.items() for name, result in row.items()
           if result not in ("refused", "accepted", "-")]  # fmt: skip
    if options.json:
        print(json.dumps(rows, indent=1))
    else:
        width = max(map(len, rows))
        print(f"{'patch':{width}}  " + "  ".join(f"{name:11}" for name in MUTATIONS))
        for patch, row in rows.items():
            print(f"{patch:{width}}  " + "  ".join(f"{result:11}" for result in row.values()))
        refused = sum(result == "refused" for row in rows.values() for result in row.values())
        print(f"{len(rows)} patches: {refused} mutations refused, {len(bad)} wrong")
    for line in bad:
        print(line, file=sys.stderr)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
