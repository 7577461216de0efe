# SPDX-License-Identifier: Apache-2.0
"""Fingerprints: formatting does not count, what is executed does."""

from __future__ import annotations

import ast
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recipe.overlay import source
from recipe.overlay.errors import MissingTarget
from recipe.overlay.target import parse_target

BODY = '''
@register(mode=1)
def f(x: int, *args, y=1, **kw) -> int:
    """Doc."""
    def inner(z):
        return z + y
    if x > 0:
        return inner(x)
    for i in range(3):
        x += i
    text = f"{x!r:>{y}} and {y}"
    return [a for a in args if a] or {**kw, "k": (1, 2.0, None, "s")}
'''


def fp(text: str, name: str | None = "f") -> str:
    tree: list[ast.AST] = [ast.parse(text)]
    if name:
        tree = [node for node in ast.walk(tree[0]) if getattr(node, "name", None) == name]
    return source.fingerprint(tree)


def write(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "m.py"
    file.write_text(text, encoding="utf-8")
    return file


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_comments_blank_lines_and_docstrings_do_not_count(seed):
    rng = random.Random(seed)
    lines = []
    for line in BODY.splitlines():
        indent = " " * (len(line) - len(line.lstrip()))
        lines += [""] * rng.randrange(2) + [f"{indent}# note {rng.random()}"] * rng.randrange(2)
        lines.append(
            line + (f"  # {rng.random()}" if rng.random() < 0.3 and line.strip() and '"""' not in line else "")
        )
    text = "\n".join(lines)
    if rng.random() < 0.5:
        text = text.replace('"""Doc."""', '"""Another\n    text."""')
    assert fp(text) == fp(BODY)


def test_formatting_does_not_count():
    assert fp(ast.unparse(ast.parse(BODY))) == fp(BODY)
    assert fp("def f(a,b):return(a+\n b)") == fp("def f(a, b):\n    return a + b\n")
    assert fp("def f(): return 'ab'") == fp('def f(): return "a" "b"')


MUTANTS = [
    ("mode=1", "mode=2"),
    ("@register(mode=1)\n", ""),
    ("x: int", "x: float"),
    ("-> int", "-> float"),
    ("y=1", "y=2"),
    ("*args, y", "args, *, y"),
    ("**kw)", "**kws)"),
    ("z + y", "z - y"),
    ("x > 0", "x >= 0"),
    ("range(3)", "range(4)"),
    ("x += i", "x -= i"),
    ("!r", "!s"),
    (" and {y}", " or {y}"),
    ("2.0", "2"),
    ("None", "0"),
    ('"s"', 'b"s"'),
    ("if a]", "]"),
    ("def f", "async def f"),
    ("return inner(x)", "return inner(x); pass"),
]


@pytest.mark.parametrize(("old", "new"), MUTANTS)
def test_what_is_executed_counts(old, new):
    assert old in BODY
    assert fp(BODY.replace(old, new, 1)) != fp(BODY)


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_any_change_of_one_node_counts(seed):
    """Change one random constant, name, operator or the order of two statements somewhere in the tree."""
    rng = random.Random(seed)
    tree = ast.parse(BODY)
    before = source.fingerprint([tree])
    nodes = [n for n in ast.walk(tree) if isinstance(n, (ast.Constant, ast.Name, ast.arg, ast.BinOp, ast.FunctionDef))]
    nodes = [n for n in nodes if not (isinstance(n, ast.Constant) and n.value == "Doc.")]
    node = rng.choice(nodes)
    if isinstance(node, ast.Constant):
        node.value = (node.value, rng.randrange(100))
    elif isinstance(node, ast.Name):
        node.id += "_"
    elif isinstance(node, ast.arg):
        node.arg += "_"
    elif isinstance(node, ast.BinOp):
        node.op = ast.Pow()
    else:
        node.body = node.body[:1] + node.body[1:][::-1] if len(node.body) > 2 else [*node.body, ast.Pass()]
    assert source.fingerprint([tree]) != before


STATEMENTS = """return | return None | x = y = 1 | x = (y, 1) | x: int | x: int = None | lambda: 0 | lambda x: 0
f(*a) | f(a) | f(**a) | {**a} | {None: a} | a[1:] | a[:1] | a[::1] | import a | import a as b | from a import b
from .a import b | from . import b | del a | global a | raise | raise a | raise a from b | yield | yield None
match a:~  case None: pass | match a:~  case True: pass | match a:~  case _: pass
try: pass~except: pass | try: pass~finally: pass | 'a' | b'a' | 1 | 1.0 | True | 1j | ... | -0.0 | 0.0"""


def test_absent_and_present_fields_are_told_apart():
    distinct = [part.strip().replace("~", "\n") for line in STATEMENTS.splitlines() for part in line.split("|")]
    prints = {source.fingerprint([ast.parse("def f():\n " + text.replace("\n", "\n "))]): text for text in distinct}
    assert len(prints) == len(distinct)


CLASS = '''
import os
from pkg import thing as other

class Outer(Base, metaclass=Meta):
    """Doc."""
    limit: int = 3

    class Inner:
        def deep(self): return 1

    @property
    def p(self): return 1

    @p.setter
    def p(self, value): pass

    if os.name == "posix":
        def where(self): return 1
    else:
        def where(self): return 2

try:
    from fast import g
except ImportError:
    def g(): return 0

A, (B, *C) = 1, (2, 3)
TABLE: dict = {"a": 1}
TABLE |= {"b": 2}
for LOOP in ():
    D = 1
with open(os.devnull) as E:
    F = 1
'''


@pytest.mark.parametrize(
    ("name", "count"),
    [("Outer", 1), ("Outer.limit", 1), ("Outer.Inner.deep", 1), ("Outer.p", 2), ("Outer.where", 2), ("g", 2), ("B", 1),
     ("C", 1), ("TABLE", 2), ("D", 1), ("F", 1), ("other", 1)],
)  # fmt: skip
def test_finds_every_statement_that_binds_the_name(tmp_path, name, count):
    excerpt = source.find(write(tmp_path, CLASS), name)
    assert len(excerpt.lines) == count
    assert name.split(".")[-1] in excerpt.source()


@pytest.mark.parametrize("name", ["missing", "Outer.missing", "Outer.Inner.missing", "g.x", "pkg", "deep"])
def test_says_what_it_did_not_find(tmp_path, name):
    with pytest.raises(MissingTarget, match=name.split(".")[-1]):
        source.find(write(tmp_path, CLASS), name)


def test_a_change_elsewhere_in_the_file_does_not_count(tmp_path):
    expected = source.find(write(tmp_path, CLASS), "Outer.Inner.deep").fingerprint
    assert (
        source.find(write(tmp_path, "X = 1\n" + CLASS.replace("return 2", "return 3")), "Outer.Inner.deep").fingerprint
        == expected
    )


def test_decorator_line_and_span(tmp_path):
    excerpt = source.find(write(tmp_path, BODY), "f")
    assert excerpt.lines[0][0] == 2 and excerpt.where.endswith("m.py:2") and excerpt.source().startswith("@register")


def test_module_and_submodule_targets(tmp_path):
    package = tmp_path / "pkg"
    package.mkdir()
    (package / "__init__.py").write_text("X = 1\n")
    (package / "sub.py").write_text('"""Doc."""\nY = 1\n')
    excerpt = source.find_target(parse_target("pkg:sub"), "submodule", [tmp_path])
    assert excerpt == source.find_target(parse_target("pkg:sub"), None, [tmp_path])
    (package / "sub.py").write_text('"""Another."""\n\n\nY = 1  # one\n')
    assert source.find_target(parse_target("pkg:sub"), "submodule", [tmp_path]).fingerprint == excerpt.fingerprint
    with pytest.raises(MissingTarget, match="no source of module gone"):
        source.find_target(parse_target("gone:x"), None, [tmp_path])


def test_fingerprint_is_the_same_in_every_python_version():
    """Pinned: declarations are written under one Python and checked under another."""
    assert fp(BODY) == PINNED


PINNED = "sha256:d1a28e1c933b490a006a724d0419111419b7c3398e44fe8892b47e972542d760"
