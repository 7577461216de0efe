# SPDX-License-Identifier: Apache-2.0
"""Source patches: applied exactly as their header says, all or none, whatever repositories stand around."""

from __future__ import annotations

import difflib
import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from recipe.overlay import source

CORE = "W = 2\n\n\ndef attend(q, k):\n    # the old way\n    return q * k\n\n\ndef other(x):\n    return x\n"
OURS = CORE.replace("    return q * k\n", "    # NPU-ADAPTATION: why\n    return q + k\n")
NAME = "beta_patches/core.patch"


def fingerprint(text: str, qualname: str) -> str:
    return source.find_in(text.encode(), Path("x.py"), qualname).fingerprint


def diff(before: str, after: str, path: str = "beta/core/__init__.py") -> str:
    lines = difflib.unified_diff(before.splitlines(True), after.splitlines(True), f"a/{path}", f"b/{path}")
    return "".join(lines)


def write(checkout, text: str, file: str = "beta_patches/core.patch", **fields: str) -> Path:
    """Write a `.patch` file with a header that fits CORE and OURS, but for `fields`."""
    header = {
        "Target": "beta.core:attend", "Why": "it goes wrong", "Upstream": "beta-core==2.0",
        "Fingerprint": fingerprint(CORE, "attend"), "Patched": fingerprint(OURS, "attend"), "Remove-when": "never",
    } | {key.replace("_", "-"): value for key, value in fields.items()}  # fmt: skip
    place = checkout.root / file
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text("".join(f"{key}: {value}\n" for key, value in header.items()) + "\n" + text)
    return place


def bring(checkout, core: str = CORE) -> None:
    """Pin a beta-core whose `beta/core/__init__.py` is `core`."""
    files = {"PKG-INFO": "Name: beta-core\nVersion: 2.0\n", "beta/__init__.py": "", "beta/core/__init__.py": core}
    checkout.sdist([(f"beta_core-2.0/{name}", text) for name, text in files.items()])
    shutil.rmtree(checkout.cache, ignore_errors=True)
    checkout.pin()


@pytest.fixture
def patched(checkout):
    bring(checkout)
    write(checkout, diff(CORE, OURS))
    return checkout


def test_is_applied_and_recorded(patched):
    done = patched.sync("--json")
    assert done.returncode == 0, done.stderr
    assert patched.content()["beta/core/__init__.py"] == OURS
    digest = hashlib.sha256((patched.root / NAME).read_bytes()).hexdigest()
    recorded = [{"file": NAME, "sha256": digest, "target": "beta.core:attend"}]
    assert patched.manifest["source_patches"] == recorded == json.loads(done.stdout)["source_patches"]
    pinned = {"alpha/worker.py": patched.worker, "beta/core/__init__.py": CORE}
    assert patched.manifest["changed"] == {
        name: hashlib.sha256(text.encode()).hexdigest() for name, text in pinned.items()
    }
    assert "our prelude line and 1 source patch," in done.stderr and patched.sync("--check").returncode == 0
    assert "up to date" in patched.sync().stdout


def test_changed_or_removed_patch_makes_the_tree_anew(patched):
    patched.sync()
    third = CORE.replace("q * k", "q - k")
    write(patched, diff(CORE, third), Patched=fingerprint(third, "attend"))
    assert "changed: beta/core/__init__.py" in patched.sync("--check").stdout
    assert "synced" in patched.sync().stdout and patched.content()["beta/core/__init__.py"] == third
    (patched.root / NAME).unlink()
    assert "synced" in patched.sync().stdout and patched.content()["beta/core/__init__.py"] == CORE


def test_patch_of_an_upstream_that_is_not_in_the_tree_is_left_alone(patched):
    write(patched, "--- a/gamma/x.py\n", "gamma_patches/x.patch", Target="gamma.x:f")
    assert patched.sync().returncode == 0
    assert [entry["file"] for entry in patched.manifest["source_patches"]] == [NAME]
    path, commit = patched.repository(files={"gamma/x.py": "def f():\n    return 1\n"})
    patched.pin_git(commit)
    line = patched.fails("--with", "gamma", "--from", f"gamma={path}")
    assert line.startswith("error: gamma_patches/x.patch: gamma.x:f in gamma/x.py is sha256:")


def test_one_failing_patch_leaves_everything_as_it_was(patched):
    patched.sync()
    write(patched, diff("no such line\n", "x\n", "alpha/__init__.py"), "alpha_patches/__init__.patch", Target="alpha:V",
          Fingerprint=fingerprint("V = 1\n", "V"), Patched=fingerprint("V = 2\n", "V"))  # fmt: skip
    third = CORE.replace("q * k", "q - k")
    write(patched, diff(CORE, third), Patched=fingerprint(third, "attend"))
    line = patched.fails()
    assert "alpha_patches/__init__.patch: does not apply to alpha/__init__.py: error: patch failed" in line
    assert patched.content()["beta/core/__init__.py"] == OURS


def test_same_patch_fits_two_pinned_sources(patched):
    """Several fingerprints: here the second, with another body, and lines moved by code that is not the target's."""
    core = "import os\n\n\n" + CORE.replace("W = 2", "W = 3").replace("# the old way", "# another comment")
    new = core.replace("q * k", "(q * k)").replace("    return (q * k)", "    return (q * k) * 1")
    bring(patched, new)
    after = new.replace("    return (q * k) * 1\n", "    return q + k + 1\n")
    text = diff(new, after)
    write(patched, text, Fingerprint=f"{fingerprint(CORE, 'attend')} {fingerprint(new, 'attend')}",
          Patched=f"{fingerprint(OURS, 'attend')} {fingerprint(after, 'attend')}")  # fmt: skip
    assert patched.sync().returncode == 0 and patched.content()["beta/core/__init__.py"] == after
    # The result must be the one that stands beside the fingerprint found, not any of them.
    write(patched, text, Fingerprint=f"{fingerprint(CORE, 'attend')} {fingerprint(new, 'attend')}",
          Patched=f"{fingerprint(after, 'attend')} {fingerprint(OURS, 'attend')}")  # fmt: skip
    assert "the header says Patched" in patched.fails()


def test_lines_that_moved_are_no_hindrance_but_changed_context_is(patched):
    moved = "import os\n\n\n" + CORE
    bring(patched, moved)
    assert patched.sync().returncode == 0 and patched.content()["beta/core/__init__.py"] == "import os\n\n\n" + OURS
    bring(patched, CORE.replace("    # the old way\n", "    #  the old way \n"))  # same fingerprint, other text
    assert "does not apply" in patched.fails()


@pytest.mark.parametrize(
    ("after", "says"),
    [
        (CORE.replace("q * k", "q / k"), "becomes sha256:"),
        (OURS.replace("W = 2", "W = 5"), "outside of beta.core:attend"),
        (OURS.replace("return x\n", "return -x\n"), "outside of beta.core:attend"),
        (OURS + "\n\ndef more():\n    pass\n", "outside of beta.core:attend"),
        (OURS.replace("W = 2\n", "W = 2  # comment\n"), "outside of beta.core:attend"),
        (CORE.replace("attend", "attention"), "no beta.core:attend in beta/core/__init__.py as patched"),
        (OURS.replace("return q + k", "return q +"), "as patched"),
    ],
)
def test_diff_that_does_other_things_than_its_header_says(patched, after, says):
    write(patched, diff(CORE, after))
    line = patched.fails()
    assert says in line and NAME in line


@pytest.mark.parametrize(
    "extra",
    [
        diff("V = 1\n", "V = 2\n", "alpha/__init__.py"),
        "--- /dev/null\n+++ b/beta/core/new.py\n@@ -0,0 +1 @@\n+x = 1\n",
        "diff --git a/beta/link.py b/beta/link.py\nnew file mode 120000\n--- /dev/null\n+++ b/beta/link.py\n"
        "@@ -0,0 +1 @@\n+/etc/passwd\n\\ No newline at end of file\n",
        "--- /dev/null\n+++ b/../evil.py\n@@ -0,0 +1 @@\n+x = 1\n",
    ],
)
def test_diff_of_another_file(patched, extra):
    write(patched, diff(CORE, OURS) + extra)
    line = patched.fails()
    assert NAME in line and ("and nothing else" in line or "does not apply" in line)
    write(patched, extra)
    assert NAME in patched.fails()
    assert not list(patched.root.parent.rglob("evil.py"))


def test_drift_and_malformed_headers(patched):
    bring(patched, CORE.replace("q * k", "q ** k"))
    line = patched.fails()
    assert fingerprint(CORE, "attend") in line and "the upstream has changed" in line
    bring(patched)
    zeros = "sha256:" + "0" * 64
    for fields, says in (
        ({"Target": "beta.core:gone", "Fingerprint": zeros, "Patched": zeros}, "has no 'gone'"),
        ({"Target": "beta.other:attend"}, "mirrors beta.core"),
        ({"Why": ""}, "why"),
        ({"Patched": "a b"}, "expected as many"),
    ):
        write(patched, diff(CORE, OURS), **fields)
        line = patched.fails()
        assert line.startswith(f"error: {NAME}: ") and says in line
    write(patched, "no diff")
    assert "no unified diff" in patched.fails()
    (patched.root / NAME).unlink()
    write(patched, diff(CORE, OURS, "beta/gone.py"), "beta_patches/gone.patch", Target="beta.gone:attend")
    assert "the upstream has no module beta.gone" in patched.fails()


def test_no_repository_or_setting_around_interferes(patched, tmp_path):
    """The temporary directory inside a repository, git's variables set, and settings that would make git lenient."""
    around = tmp_path / "around"
    (around / "tmp").mkdir(parents=True)
    patched.git(around, "init", "-q")
    (tmp_path / ".gitconfig").write_text("[apply]\n\tignoreWhitespace = change\n\twhitespace = fix\n")
    around_it = {
        "TMPDIR": str(around / "tmp"), "GIT_DIR": str(around / ".git"), "GIT_WORK_TREE": str(around),
        "GIT_PREFIX": "x/", "HOME": str(tmp_path),
    }  # fmt: skip
    for environment in ({"TMPDIR": str(around / "tmp")}, around_it):
        done = subprocess.run(patched.command(), env=patched.environment(**environment), capture_output=True, text=True,
                              check=False, timeout=60)  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert patched.content()["beta/core/__init__.py"] == OURS
        shutil.rmtree(patched.upstream)
    bring(patched, CORE.replace("    # the old way", "    #   the old way"))
    done = subprocess.run(patched.command(), env=patched.environment(**around_it), capture_output=True, text=True,
                          check=False, timeout=60)  # fmt: skip
    assert done.returncode == 1 and "does not apply" in done.stderr
    assert not list((around / "tmp").iterdir())


def test_without_git(patched, tmp_path):
    (tmp_path / "bin").mkdir()
    assert "a source patch needs it: install git" in patched.fails(PATH=str(tmp_path / "bin"))


def test_restore_and_back(patched):
    patched.sync()
    ours = patched.content()
    done = patched.sync("--restore")
    assert done.returncode == 0 and "synced: exactly the pinned sources, " in done.stdout
    restored = patched.content()
    assert restored == {**ours, "beta/core/__init__.py": CORE, "alpha/worker.py": patched.worker}
    assert patched.manifest["state"] == "pristine" and patched.manifest["prelude"] is None
    assert patched.manifest["source_patches"] == [] and patched.manifest["changed"] == {}
    assert "up to date" in patched.sync("--restore").stdout
    checked = patched.sync("--check")
    assert checked.returncode == 1 and checked.stdout.count("\n") == 1
    says = "pristine: the prelude line is missing from alpha/worker.py and 1 source patch is not applied"
    assert says in checked.stdout
    assert "run: python -m recipe sync" in checked.stdout
    (patched.upstream / "alpha" / "__init__.py").write_text("V = 9\n")
    assert "changed: alpha/__init__.py" in patched.sync("--check").stdout
    assert "synced" in patched.sync().stdout and patched.content() == ours
    assert patched.sync("--check").returncode == 0
