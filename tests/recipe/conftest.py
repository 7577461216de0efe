# SPDX-License-Identifier: Apache-2.0
"""A made-up upstream `fake` and its mirror `fake_patches` in a temporary directory, run in fresh processes."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from recipe.overlay import source
from recipe.overlay.target import parse_target

REPO = Path(__file__).resolve().parents[2]

MOD = """
import functools

def f(x, y=1):
    return x + y

async def co(x):
    return x

@functools.lru_cache
def cached(x):
    return object()

class A:
    def m(self, x):
        return ("m", x)

    @staticmethod
    def s(x):
        return ("s", x)

    @classmethod
    def c(cls, x):
        return (cls, x)

    @property
    def p(self):
        return self._p if hasattr(self, "_p") else 1

    @p.setter
    def p(self, value):
        self._p = value

    @functools.cached_property
    def cp(self):
        return 1

class B(A):
    pass

REGISTRY = {("vllm", "sync"): "stock", "x": 1}
CONST = 3
"""

PRELUDE = """
from pathlib import Path
from recipe.overlay import install
install(Path(__file__).resolve().parents[1])
"""


class World:
    """`<root>/up/fake` and `<root>/fake_patches`; upstream `fake.mod` is MOD unless overwritten."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.upstream("__init__.py", "")
        self.upstream("mod.py", MOD)
        self.mirror("__init__.py", "")
        self.mirror("prelude.py", PRELUDE)

    def upstream(self, path: str, text: str) -> Path:
        return self._write(self.root / "up" / "fake" / path, text)

    def mirror(self, path: str, *parts: str) -> Path:
        head = "from recipe.overlay import Condition, patch\n" if any("patch" in part for part in parts) else ""
        return self._write(self.root / "fake_patches" / path, head + "\n".join(textwrap.dedent(p) for p in parts))

    def _write(self, file: Path, text: str) -> Path:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        return file

    def fingerprint(self, target: str, kind: str | None = None) -> str:
        return source.find_target(parse_target(target), kind, [self.root / "up"]).fingerprint

    def arguments(self, target: str, **more: object) -> str:
        fields = {"why": "because", "upstream": "fake==1", "remove_when": "never"} | more
        if "fingerprint" not in fields:
            fields["fingerprint"] = self.fingerprint(target, "submodule" if more.get("kind") == "submodule" else None)
        raw = fields.pop("when", None)
        text = ", ".join(f"{name}={value!r}" for name, value in fields.items())
        return f"{target!r}, {text}" + (f", when={raw}" if raw else "")

    def decl(self, target: str, body: str, **more: object) -> str:
        """Text of one decorated declaration; `body` is the function or class."""
        return f"@patch({self.arguments(target, **more)})\n{textwrap.dedent(body).strip()}\n"

    def run(self, code: str, *arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run `code` in a fresh process with the world on its path (`arguments` instead of code when code is "")."""
        path = os.pathsep.join([str(REPO), str(self.root), str(self.root / "up")])
        command = [sys.executable, *(arguments if not code else ("-c", textwrap.dedent(code), *arguments))]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=60, check=False, cwd=self.root,
            env={**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", **(env or {})},
        )  # fmt: skip

    def ok(self, code: str, env: dict[str, str] | None = None) -> str:
        """Run `code`; it must end well. Returns what it printed."""
        done = self.run(code, env=env)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def fails(self, code: str) -> str:
        """Run `code`; it must raise. Returns the last line of the traceback."""
        done = self.run(code)
        assert done.returncode == 1, (done.returncode, done.stdout, done.stderr)
        return done.stderr.strip().splitlines()[-1]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)
