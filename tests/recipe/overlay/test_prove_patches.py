# SPDX-License-Identifier: Apache-2.0
"""`scripts/prove_patches.py` on a small tree: one patch is guarded, one is not, one has no test."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parents[3]

TEST = """
import pytest, fake_patches.prelude, fake.mod

@pytest.mark.proves("fake_patches.mod:f")
def test_f():
    assert fake.mod.f(1) == "ours"

@pytest.mark.proves("fake_patches.mod:x")
def test_x():
    assert fake.mod.REGISTRY["x"] == 4

@pytest.mark.proves("fake_patches.mod:m")
def test_m_proves_nothing():
    assert fake.mod.A().m(1)

def test_not_asked_for():
    raise AssertionError
"""


def test_prove_patches(world):
    world.mirror(
        "mod.py",
        world.decl("fake.mod:f", "def f(original, x): return 'ours'"),
        world.decl("fake.mod:A.m", "def m(original, self, x): return 'ours'"),
        world.decl("fake.mod:A.s", "def untested(original, x): return 'ours'"),
        world.decl("fake.mod:REGISTRY[x]", "def x(): return 4", kind="registry"),
    )
    root = world.root
    (root / "up").rename(root / "upstream")
    for room in ("recipe", "scripts"):
        shutil.copytree(REPO / room, root / room, ignore=shutil.ignore_patterns("__pycache__"))
    (root / "tests").mkdir()
    (root / "tests" / "test_fake.py").write_text(TEST)
    (root / "pytest.ini").write_text("[pytest]\nmarkers = proves(*ids)\naddopts = --import-mode=importlib\n")
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "RECIPE_UPSTREAM")}
    done = subprocess.run(
        [sys.executable, str(root / "scripts" / "prove_patches.py"), "--timeout", "60"],
        capture_output=True, text=True, env=environment, cwd=root, timeout=120, check=False,
    )  # fmt: skip
    lines = re.findall(r"^(.*\S)\s{2,}(fake_patches\S+)", done.stdout, re.MULTILINE)
    verdicts = {patch: verdict for verdict, patch in lines}
    assert verdicts == {
        "fake_patches.mod:f": "proven",
        "fake_patches.mod:m": "NOT PROVEN: green without it",
        "fake_patches.mod:untested": "NO TEST RAN",
        "fake_patches.mod:x": "proven",
    }, done.stdout + done.stderr
    assert done.returncode == 1 and "2 of 4 patches are proven" in done.stdout
    assert "@patch" in (root / "fake_patches" / "mod.py").read_text()
