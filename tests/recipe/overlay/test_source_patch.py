# SPDX-License-Identifier: Apache-2.0
"""Source patches: their header is read strictly, and a process that imports the unpatched source stops."""

from __future__ import annotations

import json

import pytest

from recipe.audit import fit
from recipe.audit.declarations import collect
from recipe.audit.markers import unmarked
from recipe.overlay import source_patch
from recipe.overlay.errors import BadDeclaration

DIFF = """--- a/fake/mod.py
+++ b/fake/mod.py
@@ -4,2 +4,2 @@
 def f(x, y=1):
-    return x + y
+    return x - y  # NPU-ADAPTATION: the other way round
"""


def header(world, **change):
    before = world.fingerprint("fake.mod:f")
    file = world.root / "up" / "fake" / "mod.py"
    text = file.read_text()
    file.write_text(text.replace("return x + y", "return x - y"))
    after = world.fingerprint("fake.mod:f")
    file.write_text(text)
    fields = {"Target": "fake.mod:f", "Why": "because it is\n so", "Upstream": "fake==1", "Fingerprint": before,
              "Patched": after, "Remove-when": "never"} | change  # fmt: skip
    return "".join(f"{name}: {value}\n" for name, value in fields.items() if value is not None)


def put(world, text):
    file = world.root / "fake_patches" / "mod.patch"
    file.write_text(text)
    return file


def test_header_and_diff(world):
    file = put(world, header(world) + "\n" + DIFF)
    patch = source_patch.read(file, "fake_patches.mod")
    assert source_patch.files(world.root) == [file] and source_patch.diff(file) == DIFF
    assert (patch.id, str(patch.target), patch.why) == ("fake_patches.mod:f", "fake.mod:f", "because it is so")
    assert len(patch.fingerprints) == 1 and patch.fingerprints != patch.patched == patch.expected


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"Why": None}, "the header has no why"),
        ({"Extra": "x"}, "'Extra: x'"),
        ({"Target": "fake.other:f"}, "but this file mirrors fake.mod"),
        ({"Patched": "sha256:a sha256:b"}, "1 Fingerprint and 2 Patched"),
        ({"Patched": "sha256:a"}, "'sha256:a': expected 'sha256:' and 64 hex digits"),
    ],
)
def test_bad_header(world, change, says):
    with pytest.raises(BadDeclaration, match=says):
        source_patch.read(put(world, header(world, **change) + "\n" + DIFF), "fake_patches.mod")


def test_no_diff(world):
    with pytest.raises(BadDeclaration, match="no unified diff"):
        source_patch.read(put(world, header(world)), "fake_patches.mod")


def test_unpatched_source_stops_the_import_and_the_patched_one_is_recorded(world, tmp_path):
    put(world, header(world) + "\n" + DIFF)
    world.mirror("mod.py", world.decl("fake.mod:A.m", "def m(original, self, x): return 'ours'"))
    last = world.fails("import fake_patches.prelude, fake.mod")
    assert "fake_patches.mod:f" in last and "is not the patched source" in last and "python -m recipe sync" in last
    file = world.root / "up" / "fake" / "mod.py"
    file.write_text(file.read_text().replace("return x + y", "return x - y"))
    out = world.ok("import fake_patches.prelude, fake.mod as m\nfrom recipe.overlay import apply, revert, status\n"
                   "assert m.f(3) == 2 and m.A().m(1) == 'ours'\n"
                   "revert(); assert m.f(3) == 2 and m.A().m(1) != 'ours'\n"  # what is in the file stays
                   "apply(); print({s['patch']: s['status'] for s in status()})",
                   env={"RECIPE_RUN_DIR": str(tmp_path / "run")})  # fmt: skip
    assert out == "{'fake_patches.mod:m': 'applied', 'fake_patches.mod:f': 'applied'}"
    lines = [json.loads(line) for line in (tmp_path / "run" / "manifest.jsonl").read_text().splitlines()]
    assert {line["patch"]: line["kind"] for line in lines}["fake_patches.mod:f"] == "source"


def test_tools_know_source_patches(world):
    file = put(world, header(world) + "\n" + DIFF)
    (patch,) = collect(world.root)
    assert patch.kind == "source" and patch.file == file and patch.why == "because it is so"
    roots = [world.root / "up"]
    unapplied = fit.check(patch, roots)
    assert unapplied.verdict == "changed" and "python -m recipe sync" in unapplied.line
    assert fit.check(patch, roots, want_patched=False).verdict == "pinned"
    upstream = roots[0] / "fake" / "mod.py"
    upstream.write_text(upstream.read_text().replace("return x + y", "return x - y"))
    assert fit.check(patch, roots).verdict == "same"
    assert unmarked(world.root) == []
    put(world, file.read_text().replace("  # NPU-ADAPTATION: the other way round", ""))
    assert "has no NPU-ADAPTATION comment" in unmarked(world.root)[0]
