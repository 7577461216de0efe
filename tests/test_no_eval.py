# SPDX-License-Identifier: Apache-2.0
"""Nothing in our tree evaluates or unpickles foreign data, runs a shell on a string, or runs code from a model folder.

Python is read as syntax, so that comments and texts may name these things; other files are read as text. What is
needed all the same is listed in ALLOWED, with the reason.
"""

from __future__ import annotations

import ast
import re
import subprocess
from collections import Counter
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]

CALLS = frozenset(("eval", "exec", "sympify", "parse_expr"))
UNPICKLING = frozenset(("load", "loads", "Unpickler"))
PICKLES = frozenset(("pickle", "cPickle", "dill", "cloudpickle", "joblib", "_pickle"))
FLAGS = frozenset(("shell", "trust_remote_code"))
OTHER_FILES = re.compile(r"trust[-_]remote[-_]code\b[\"']?\s*[=:]\s*[\"']?true|^\s*eval\s", re.I | re.M)
TEXT_SUFFIXES = frozenset((".sh", ".toml", ".yaml", ".yml", ".json", ".cfg", ".ini"))

#: What may occur how often: (file, construct): (count, why).
ALLOWED: dict[tuple[str, str], tuple[int, str]] = {
    ("recipe/weights/converter.py", "trust_remote_code="): (1, "what is said of an option that does nothing"),
    ("tests/other_recipes/settings.toml", "trust_remote_code=true"): (2, "of a published script, and refused"),
    ("tests/exactness/training/conftest.py", "torch.load"): (1, "tensors that the test's ranks wrote, weights only"),
    ("tests/npu_sim/test_serialization.py", "torch.load"): (1, "what the test wrote, weights only"),
    ("tests/npu_sim/test_serialization.py", "pickle.loads"): (1, "a tensor that the test pickled in the same line"),
    ("tests/npu_sim/test_complex.py", "torch.load"): (1, "what the test wrote, weights only"),
    ("tests/npu_sim/test_complex.py", "pickle.loads"): (1, "a tensor that the test pickled in the same line"),
    ("tests/npu_sim/ops/test_ops_layout.py", "torch.load"): (1, "what the test wrote, weights only"),
    ("tests/npu_sim/transfer_process.py", "torch.load"): (1, "what the process wrote"),
    ("recipe/weights/dcp_reader.py", "pickle.Unpickler"): (1, "its find_class admits inert stand-ins only"),
    ("tests/recipe/weights/test_convert.py", "torch.load"): (2, "what the conversion wrote, weights only"),
    ("tests/recipe/weights/test_dcp_metadata.py", "pickle.loads"): (1, "what the test wrote"),
    ("tests/recipe/weights/test_dcp_reader.py", "pickle.loads"): (2, "what the test wrote"),
    ("tests/recipe/weights/test_legacy.py", "torch.load"): (2, "what the conversion wrote, weights only"),
    ("tests/recipe/weights/test_legacy_megatron.py", "torch.load"): (1, "what Megatron saved, weights only"),
    ("tests/recipe/weights/test_torch_zip.py", "torch.load"): (3, "what the test wrote, weights only"),
    ("tests/verl_patches/utils/dataset/test_shuffle.py", "torch.load"): (1, "what the test saved, as verl loads it"),
    ("recipe/reward/processes/tier3_worker.py", "getattr(builtins)"): (1, "to guard eval and exec"),
}


def found_in_python(source: str) -> Counter[str]:
    """The forbidden constructs of a Python source, each with its number."""
    found: Counter[str] = Counter()
    from_modules: dict[str, str] = {}
    aliases: dict[str, str] = {}
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            from_modules |= {one.asname or one.name: f"{node.module}.{one.name}" for one in node.names}
        elif isinstance(node, ast.Import):
            aliases |= {one.asname: one.name for one in node.names if one.asname}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute):
            found[_forbidden_name(node, from_modules, aliases)] += 1
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "getattr":
            named = node.args[0] if node.args else None
            found["getattr(builtins)"] += isinstance(named, ast.Name) and aliases.get(named.id, named.id) == "builtins"
        elif isinstance(node, ast.keyword) and node.arg in FLAGS and not _is_false(node.value):
            found[f"{node.arg}="] += 1
        elif isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                flag = str(key.value).rpartition(".")[2] if isinstance(key, ast.Constant) else ""
                if flag in FLAGS and not _is_false(value):
                    found[f"{flag}="] += 1
    return Counter({what: count for what, count in found.items() if what and count})


def _is_false(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is False


def _forbidden_name(node: ast.Name | ast.Attribute, from_modules: dict[str, str], aliases: dict[str, str]) -> str:
    if isinstance(node, ast.Name):
        if node.id in CALLS:
            return node.id
        dotted = from_modules.get(node.id, "")
    else:
        if node.attr in CALLS - {"eval", "exec"}:
            return node.attr
        if not isinstance(node.value, ast.Name):
            return ""
        dotted = f"{aliases.get(node.value.id, node.value.id)}.{node.attr}"
    module, _, name = dotted.rpartition(".")
    if module == "builtins" and name in CALLS:
        return name
    if (module in PICKLES and name in UNPICKLING) or dotted == "torch.load":
        return dotted
    return "os.system" if dotted in ("os.system", "os.popen") else ""


def our_files() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY, capture_output=True, check=True, text=True,
    )  # fmt: skip
    return [REPOSITORY / name for name in listed.stdout.split("\0") if name and (REPOSITORY / name).is_file()]


def findings() -> Counter[tuple[str, str]]:
    """How often each construct occurs in each file of ours."""
    found: Counter[tuple[str, str]] = Counter()
    for path in our_files():
        name = str(path.relative_to(REPOSITORY))
        if path.suffix == ".py":
            found.update({(name, what): count for what, count in found_in_python(path.read_text("utf-8")).items()})
        elif path.suffix in TEXT_SUFFIXES:
            found.update((name, match[0].strip().lower()) for match in OTHER_FILES.finditer(path.read_text("utf-8")))
    return found


def test_our_tree_has_only_what_is_allowed() -> None:
    assert len(our_files()) > 100
    allowed = {place: count for place, (count, _) in ALLOWED.items()}
    found = dict(findings())
    assert {place: count for place, count in found.items() if count > allowed.get(place, 0)} == {}
    assert {place: count for place, count in allowed.items() if found.get(place, 0) < count} == {}, "allowed, not there"


@pytest.mark.parametrize(
    ("source", "construct"),
    [
        ("eval('1')", "eval"),
        ("f = exec", "exec"),
        ("import builtins; builtins.eval('1')", "eval"),
        ("import builtins as b; getattr(b, 'ev' + 'al')('1')", "getattr(builtins)"),
        ("import pickle; pickle.load(f)", "pickle.load"),
        ("import pickle as p; p.loads(b'')", "pickle.loads"),
        ("from pickle import load as l; l(f)", "pickle.load"),
        ("import torch; torch.load(f)", "torch.load"),
        ("import torch as t; t.load(f)", "torch.load"),
        ("from torch import load; load(f)", "torch.load"),
        ("run('ls', shell=True)", "shell="),
        ("run('ls', shell=flag)", "shell="),
        ("Model(x, trust_remote_code=True)", "trust_remote_code="),
        ("{'actor.model.trust_remote_code': True}", "trust_remote_code="),
        ("import sympy; sympy.sympify('1')", "sympify"),
        ("from sympy.parsing.sympy_parser import parse_expr; parse_expr('1')", "parse_expr"),
        ("import os; os.system('ls')", "os.system"),
    ],
)
def test_each_construct_is_found(source: str, construct: str) -> None:
    assert set(found_in_python(source)) == {construct}


@pytest.mark.parametrize(
    "source", ["model.eval()", "'eval(x)'  # exec", "json.load(f)", "run(x, shell=False)", "{'shell': False}", "load()"]
)
def test_other_code_is_not(source: str) -> None:
    assert not found_in_python(source)


def test_other_files_are_searched_as_text() -> None:
    assert OTHER_FILES.search("model.trust_remote_code=True") and OTHER_FILES.search('"trust-remote-code": true')
    assert OTHER_FILES.search("  eval $x") and not OTHER_FILES.search("trust_remote_code=False evaluate")
