# SPDX-License-Identifier: Apache-2.0
"""Declarations are read without importing them; the command line; and this repository's own patches."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from recipe.audit import fit
from recipe.audit.declarations import collect
from recipe.audit.markers import unmarked
from recipe.audit.parts import served
from recipe.overlay.errors import BadDeclaration

REPO = Path(__file__).resolve().parents[3]
UPSTREAM = Path(os.environ.get("RECIPE_UPSTREAM", REPO / "upstream"))


def recipe(root: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`python -m recipe` of a copy of the overlay that lies in `root`."""
    if root != REPO and not (root / "recipe").exists():
        shutil.copytree(REPO / "recipe", root / "recipe", ignore=shutil.ignore_patterns("__pycache__"))
    # A copy has upstreams of its own.
    inherited = {name: value for name, value in os.environ.items() if root == REPO or name != "RECIPE_UPSTREAM"}
    return subprocess.run(
        [sys.executable, "-m", "recipe", *arguments], cwd=root, capture_output=True, text=True, timeout=60, check=False,
        env={**inherited, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1", **environment},
    )  # fmt: skip


@pytest.fixture
def two(world):
    world.mirror(
        "mod.py",
        "import a_module_that_is_not_installed\noff = Condition(bool, otherwise='it is off')",
        world.decl("fake.mod:f", "def f(original, x):  # NPU-ADAPTATION: one\n    return 0", aliases=("fake.user:f",)),
        world.decl("fake.mod:REGISTRY", "def r():  # NPU-ADAPTATION: two\n    return 0", kind="registry",
                   key=("vllm", "sync"), when="off"),
        world.decl("fake.mod:CONST", "def CONST():  # NPU-ADAPTATION: three\n    return 4", kind="replace"),
    )  # fmt: skip
    world.upstream("user.py", "from fake.mod import f\n")
    (world.root / "up").rename(world.root / "upstream")
    return world


def test_list_and_show_need_no_import_of_the_mirror(two):
    listed = json.loads(recipe(two.root, "patches", "list", "--json").stdout)
    assert [patch["id"] for patch in listed] == [f"fake_patches.mod:{name}" for name in ("f", "r", "CONST")]
    assert [patch["kind"] for patch in listed] == ["wrap", "registry", "replace"]
    assert listed[1]["target"] == "fake.mod:REGISTRY[('vllm', 'sync')]" and listed[1]["otherwise"] == "it is off"
    assert listed[0]["aliases"] == ["fake.user:f"] and listed[0]["file"] == "fake_patches/mod.py"
    text = recipe(two.root, "patches", "show", "mod:f").stdout
    assert "because" in text and "def f(x, y=1):" in text and "NPU-ADAPTATION: one" in text
    assert "3 patches" in recipe(two.root, "patches", "list").stdout
    wrong = recipe(two.root, "patches", "show", "nothing")
    assert wrong.returncode == 1 and "fake_patches.mod:r" in wrong.stderr


def test_verify(two):
    good = recipe(two.root, "patches", "verify")
    assert good.returncode == 0 and "3 patches checked" in good.stdout, good.stderr
    changed_tree = two.root / "other"
    shutil.copytree(two.root / "upstream", changed_tree)
    mod = changed_tree / "fake" / "mod.py"
    mod.write_text(mod.read_text().replace("return x + y", "return x - y").replace("CONST = 3", "CONTS = 3"))
    (changed_tree / "fake" / "user.py").write_text("")
    (changed_tree / "fake" / "extra.py").write_text("CONST = 4\n")
    bad = recipe(two.root, "patches", "verify", "--against", str(changed_tree))
    assert bad.returncode == 1
    lines = bad.stderr.splitlines()
    assert len(lines) == 2
    assert "fake_patches.mod:f" in lines[0] and f"{mod}:4 has sha256:" in lines[0]
    assert "has no 'CONST'" in lines[1]
    assert bad.stdout.splitlines()[1:3] == [
        "gone        fake_patches.mod:CONST  now at fake.extra:CONST (line 1)?",
        "changed     fake_patches.mod:f      fake/mod.py:4; +1 -1 lines",
    ]
    diff = recipe(two.root, "patches", "show", "mod:f", "--against", str(changed_tree)).stdout
    assert "-    return x + y" in diff and "+    return x - y" in diff
    (changed_tree / "fake" / "mod.py").write_text((two.root / "upstream" / "fake" / "mod.py").read_text())
    result = json.loads(recipe(two.root, "patches", "verify", "--against", str(changed_tree), "--json").stdout)
    assert len(result["drift"]) == 1 and "alias fake.user:f" in result["drift"][0]
    assert [finding["verdict"] for finding in result["findings"]] == ["alias gone", "same", "same"]


def test_fingerprint_command(two):
    done = recipe(two.root, "patches", "fingerprint", "fake.mod:f")
    assert done.stdout.strip() == collect(two.root)[0].fingerprints[0] and "mod.py:4" in done.stderr
    missing = recipe(two.root, "patches", "fingerprint", "fake.gone:f")
    assert missing.returncode == 1 and "no source of module fake.gone" in missing.stderr
    assert "Traceback" not in missing.stderr


def test_markers_of_declarations(two):
    assert unmarked(two.root) == []
    extra = two.mirror("helper.py", "X = 1  # NPU-ADAPTATION: nobody uses this")
    mirror = two.root / "fake_patches" / "mod.py"
    mirror.write_text(mirror.read_text().replace("# NPU-ADAPTATION: one", "") + 's = "# NPU-ADAPTATION in a text"\n')
    assert unmarked(two.root) == [
        f"{extra}:1: a NPU-ADAPTATION comment in nothing that a @patch declaration uses",
        f"{mirror}:4: fake_patches.mod:f has no NPU-ADAPTATION comment",
    ]


# How a declaration can use another module: how that is written above it, and in its body.
USES = {
    "by name": ("from fake_patches.helper import part", "return part()"),
    "through a function of its file": (
        "from fake_patches.helper import part as p\ndef inner():\n    return p()", "return inner()"),
    "as a module": ("from fake_patches import helper", "return helper.part()"),
    "by a relative import": ("from .helper import part", "return part()"),
    "in the function": ("", "from fake_patches.helper import part\n    return part()"),
    "by a dotted text": ("NAME = 'fake_patches.helper.part'", "return NAME"),
    "through another module": ("from fake_patches.between import way", "return way()"),
}  # fmt: skip


@pytest.mark.parametrize(("above", "body"), USES.values(), ids=USES)
def test_markers_of_modules_that_a_declaration_uses(world, above, body):
    world.mirror("between.py", "def way():  # NPU-ADAPTATION: between\n    from fake_patches.helper import part\n"
                 "    return part()\n" if "between" in above else "")  # fmt: skip
    world.mirror("mod.py", above, world.decl("fake.mod:f", f"def f(original):  # NPU-ADAPTATION: it\n    {body}"))
    helper = world.mirror("helper.py", "def part():\n    return 1\ndef other():\n    return 2")
    assert unmarked(world.root) == [f"{helper}:1: no NPU-ADAPTATION comment in a module that fake_patches.mod:f uses"]
    helper.write_text("# NPU-ADAPTATION: a part\n" + helper.read_text())
    assert unmarked(world.root) == []
    assert [served(collect(world.root), world.root)[helper][0].id] == ["fake_patches.mod:f"]
    mirror = world.root / "fake_patches" / "mod.py"
    mirror.write_text(mirror.read_text().replace(body, "return 0"))
    (line,) = [line for line in unmarked(world.root) if str(helper) in line]
    assert line == f"{helper}:1: a NPU-ADAPTATION comment in nothing that a @patch declaration uses"


def test_a_use_of_another_name_of_the_module_is_none_of_what_it_uses(world):
    world.mirror("mod.py", "from fake_patches.helper import other",
                 world.decl("fake.mod:f", "def f(original):  # NPU-ADAPTATION: it\n    return other()"))  # fmt: skip
    world.mirror("helper.py", "from fake_patches.far import part\ndef other():  # NPU-ADAPTATION: a part\n"
                 "    return 2\ndef one():\n    return part()")  # fmt: skip
    far = world.mirror("far.py", "def part(): return 1")
    assert unmarked(world.root) == [] and far not in served(collect(world.root), world.root)


@pytest.mark.parametrize(
    ("above", "when"),
    [
        ("", "Condition(bool, otherwise='it is off')"),
        ("from fake_patches.conditions import off", "off"),
        ("from fake_patches.more import renamed as off", "off"),
    ],
)
def test_why_a_patch_is_left_out_is_read_wherever_it_is_written(world, above, when):
    world.mirror("conditions.py", "from recipe.overlay import Condition\noff = Condition(bool, otherwise='it is off')")
    world.mirror("more.py", "from fake_patches.conditions import off as renamed")
    world.mirror("mod.py", above, world.decl("fake.mod:f", "def f(original): return 0", when=when))
    assert [patch.otherwise for patch in collect(world.root)] == ["it is off"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t.replace("why='because'", "why=WHY"), "must be literals"),
        (lambda t: "if True:\n" + "\n".join("    " + line for line in t.splitlines()), "top level"),
        (lambda t: t + t.replace("def f", "def g"), "two patches of one target"),
        (lambda t: t.replace("'fake.mod:f'", "'fake.user:f'"), "but this file mirrors fake.mod"),
        (lambda t: t.replace(")\n", ", when=lambda: True)\n", 1), "must be a Condition"),
        (lambda t: t.replace(")\n", ", when=elsewhere)\n", 1), "must be a Condition"),
        (lambda t: t.replace(")\n", ", when=Condition(bool, otherwise=str()))\n", 1), "must be a Condition"),
    ],
)
def test_static_reading_refuses_what_it_cannot_read(world, change, says):
    text = world.decl("fake.mod:f", "def f(original, x): return 0")
    world.mirror("mod.py", "patch\n" + change(text))
    with pytest.raises(BadDeclaration, match=says):
        collect(world.root)


def test_static_and_live_declarations_agree(world):
    world.mirror("mod.py", world.decl("fake.mod:A.m", "def m(original, self, x): return 0"),
                 world.decl("fake.mod:f", "def f(original): return 0", aliases=("fake.user:f",), over=("fake",)),
                 world.decl("fake.mod:REGISTRY[x]", "def r(): return 0", kind="registry",
                            when="Condition(bool, otherwise='it is off')"))  # fmt: skip
    out = world.ok("import dataclasses, fake_patches.prelude, fake.mod\nfrom recipe.overlay import declared\n"
                   "print([dataclasses.replace(patch, ours=None, applies=None) for patch in declared()])")  # fmt: skip
    assert out == str(collect(world.root))


def test_commands_are_those_of_the_rooms_that_are_there(tmp_path):
    (tmp_path / "recipe").mkdir()
    for file in (REPO / "recipe").glob("*.py"):
        shutil.copy(file, tmp_path / "recipe")
    for room in ("overlay", "audit", "models", "weights"):
        shutil.copytree(REPO / "recipe" / room, tmp_path / "recipe" / room)
    assert recipe(tmp_path, "--help").returncode == 0
    assert recipe(tmp_path, "patches", "list").stdout.strip() == "0 patches"
    for command in ("sync", "nonsense"):
        refused = recipe(tmp_path, command)
        assert refused.returncode == 2 and f"invalid choice: '{command}'" in refused.stderr


# This repository's own patches.


def test_every_fingerprint_of_this_repository_fits_the_upstreams():
    findings = [fit.check(patch, [UPSTREAM]) for patch in collect()]
    assert [finding.line for finding in findings if not finding.fits] == []
    assert set(fit.unchecked(findings)) <= {"mindspeed"}  # optional on a laptop


def test_markers_and_declarations_of_this_repository_agree():
    assert not unmarked()


def test_every_patch_of_this_repository_has_a_test_that_proves_it():
    tests = "".join(file.read_text(encoding="utf-8") for file in (REPO / "tests").rglob("test_*.py"))
    assert [patch.id for patch in collect() if f'"{patch.id}"' not in tests] == []


def test_verify_names_the_directory_that_holds_nothing(two):
    against = ["--against", str(two.root / "against")]
    for place, arguments in (("elsewhere", []), ("upstream", []), ("against", against)):
        (two.root / place).mkdir(exist_ok=True)
        more = {"RECIPE_UPSTREAM": str(two.root / "elsewhere")} if place == "elsewhere" else {}
        if place == "upstream":
            (two.root / "upstream").rename(two.root / "away")
        done = recipe(two.root, "patches", "verify", *arguments, **more)
        assert done.returncode == 1 and done.stderr.startswith(f"error: {two.root / place} holds none of fake; "), place


def test_a_recipe_upstream_that_is_not_there_is_not_passed_over(two):
    path = os.pathsep.join([str(two.root), str(two.root / "upstream")])
    for arguments in (["verify"], ["show", "mod:f"], ["fingerprint", "fake.mod:f"]):
        done = recipe(two.root, "patches", *arguments, RECIPE_UPSTREAM=str(two.root / "nowhere"), PYTHONPATH=path)
        assert done.returncode == 1 and f"RECIPE_UPSTREAM={two.root / 'nowhere'} is not there" in done.stderr, arguments


def test_verify_is_fast_and_imports_nothing_heavy():
    code = (
        "import sys, time, recipe.audit.cli, recipe.__main__ as m; t = time.perf_counter(); "
        f"m.main(['patches', 'verify', '--against', {str(UPSTREAM)!r}]); print(time.perf_counter() - t); "
        "assert not {'torch', 'ray', 'numpy', 'verl', 'vllm', 'megatron'} & sys.modules.keys()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=True)
    assert float(done.stdout.splitlines()[-1]) < 5.0  # 0.3 s on an idle machine


def test_prelude_is_cheap_and_imports_nothing_heavy():
    code = (
        "import time; t = time.perf_counter(); import verl_patches.prelude_patch, sys; "
        "print(time.perf_counter() - t); assert not {'torch', 'ray', 'numpy', 'verl', 'vllm'} & sys.modules.keys()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 2.0  # 0.05 s on an idle machine
