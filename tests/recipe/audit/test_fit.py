# SPDX-License-Identifier: Apache-2.0
"""How declarations and another version's sources do not fit is said so that a maintainer can work from it."""

from __future__ import annotations

import shutil

import pytest

from recipe.audit import fit
from recipe.audit.declarations import collect
from recipe.overlay import drift, source


@pytest.fixture
def other(world):
    """The world's upstream as pinned, and a copy of it to change."""
    world.mirror("mod.py", world.decl("fake.mod:f", "def f(original, x): return 0"),
                 world.decl("fake.mod:A.m", "def m(original, self, x): return 0"))  # fmt: skip
    shutil.copytree(world.root / "up", world.root / "other")
    return world.root / "other" / "fake" / "mod.py"


def check(world, name):
    patch = next(patch for patch in collect(world.root) if patch.id.endswith(name))
    return fit.check(patch, [world.root / "other"], [world.root / "up"])


def test_same_text_fits(world, other):
    assert check(world, ":f").verdict == "same" and check(world, ":f").fits


def test_changed_signature_and_body_are_told(world, other):
    other.write_text(other.read_text().replace("def f(x, y=1):\n    return x + y", "def f(x, *, y=1):\n    return x"))
    finding = check(world, ":f")
    assert finding.verdict == "changed" and not finding.fits
    assert finding.notes == ("signature (x, y=1) -> (x, *, y=1)", "+2 -2 lines")
    assert finding.fingerprint in finding.line and f"{other}:4" in finding.line


def test_changed_method_is_read_with_its_indentation(world, other):
    other.write_text(other.read_text().replace("def m(self, x):", "def m(self, x, z):"))
    assert check(world, ":m").notes == ("signature (self, x) -> (self, x, z)", "+1 -1 lines")


def test_moved_target_is_looked_for_in_the_package(world, other):
    text = other.read_text()
    other.write_text(text.replace("def f(x, y=1):\n    return x + y\n", ""))
    other.with_name("moved.py").write_text("import os\n\ndef f(x, y=1):\n    return x + y\n")
    finding = check(world, ":f")
    assert finding.verdict == "gone" and finding.notes == ("now at fake.moved:f (line 3)?",)
    assert "has no 'f'" in finding.line


def test_module_that_is_gone(world, other):
    other.unlink()
    assert check(world, ":f").verdict == "gone" and "no source of module fake.mod" in check(world, ":f").line


def test_package_that_is_not_there_was_not_checked(world, other):
    shutil.rmtree(other.parent)
    findings = [check(world, ":f"), check(world, ":m")]
    assert {finding.verdict for finding in findings} == {"absent"} and fit.unchecked(findings) == ["fake"]


def test_difference_from_the_pinned_text(world, other):
    pinned = other.read_text()
    other.write_text(pinned.replace("return x + y", "return x - y"))
    patch = next(patch for patch in collect(world.root) if patch.id.endswith(":f"))
    excerpt = source.find_target(patch.target, patch.kind, [world.root / "other"])
    text = drift.difference(patch, excerpt, {"fake.mod": pinned}.get)
    assert text.startswith("\n--- pinned:4\n") and "\n-    return x + y\n+    return x - y" in text
    assert drift.difference(patch, excerpt, {}.get) == ""
    assert drift.difference(patch, excerpt, {"fake.mod": "f2 = 1\n"}.get) == ""
