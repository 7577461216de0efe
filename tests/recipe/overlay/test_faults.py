# SPDX-License-Identifier: Apache-2.0
"""What is wrong stops the import with one line that says what, where and what to do."""

from __future__ import annotations

import re

import pytest

RUN = "import fake_patches.prelude, fake.mod"
OURS = "def ours(original, *a, **k): return 'ours'"


def test_drift_names_patch_fingerprints_place_and_command(world):
    stale = world.fingerprint("fake.mod:f")
    world.mirror("mod.py", world.decl("fake.mod:f", OURS))
    file = world.upstream("mod.py", "x = 1\n\ndef f(x, y=2):\n    return x + y\n")
    last = world.fails(RUN)
    assert last.startswith("recipe.overlay.errors.DriftError: fake_patches.mod:ours (")
    assert stale in last and world.fingerprint("fake.mod:f") in last
    assert f"{file}:3" in last and "python -m recipe patches show fake_patches.mod:ours" in last


def test_drift_shows_the_difference_from_the_pinned_text_where_it_is_at_hand(world):
    world.mirror("mod.py", world.decl("fake.mod:f", OURS))
    world.upstream("mod.py", "def f(x, y=2):\n    return x + y\n")
    out = world.ok(
        """
        from pathlib import Path
        from recipe.overlay import DriftError, install
        pinned = {'fake.mod': 'def f(x, y=1):\\n    return x + y\\n'}
        install(Path.cwd(), pinned.get)
        try:
            import fake.mod
        except DriftError as error:
            print(error)
        """
    )
    assert "\n-def f(x, y=1):\n+def f(x, y=2):\n     return x + y" in out


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("fake.mod:gone", "has no 'gone'"),
        ("fake.mod:A.gone", "has no 'gone' in class A"),
        ("fake.mod:B.m", "has no 'm' in class B"),  # inherited: patch it where it is defined
        ("fake.mod:f.x", "has no 'x' in class f"),
    ],
)
def test_missing_target(world, target, says):
    world.mirror("mod.py", world.decl(target, OURS, fingerprint="sha256:" + "0" * 64))
    last = world.fails(RUN)
    assert "MissingTarget: fake_patches.mod:ours" in last and says in last
    name = target.partition(":")[2]
    probe = (
        f"import fake.mod, operator\ntry: operator.attrgetter({name!r})(fake.mod)\nexcept AttributeError: print('no')"
    )
    assert name == "B.m" or world.ok(probe) == "no"  # never created by the attempt


def test_branch_that_did_not_run(world):
    world.upstream("mod.py", "if False:\n    def f(): pass\n")
    world.mirror("mod.py", world.decl("fake.mod:f", OURS))
    assert "the branch that defines it did not run" in world.fails(RUN)


def test_two_patches_on_one_target(world):
    file = world.mirror(
        "mod.py", world.decl("fake.mod:f", OURS), world.decl("fake.mod:f", OURS.replace("ours", "two", 1))
    )
    last = world.fails(RUN)
    assert "ConflictError" in last and "fake_patches.mod:ours" in last and "fake_patches.mod:two" in last
    assert len(re.findall(re.escape(str(file)) + r":\d+", last)) == 2


def test_two_mirrors_of_one_module(world):
    world.mirror("mod.py", world.decl("fake.mod:f", OURS))
    world.mirror("mod/__init__.py", world.decl("fake.mod:A.m", OURS))
    assert "both mirror fake.mod" in world.fails(RUN)


def test_declaration_outside_of_its_mirror(world):
    world.upstream("other.py", "")
    world.mirror("other.py", world.decl("fake.mod:f", OURS))
    last = world.fails("import fake_patches.prelude, fake.other")
    assert "BadDeclaration" in last and "the target is in fake.mod, but this file mirrors fake.other" in last


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"fingerprint": "TODO"}, "expected 'sha256:' and 64 hex digits"),
        ({"why": " "}, "why=' ': expected a text"),
        ({"kind": "monkey"}, "kind='monkey': expected one of registry, submodule, wrap, replace"),
        ({"kind": "registry"}, "go together"),
        ({"kind": "source"}, "kind='source' is for .patch files"),
    ],
)
def test_malformed_declarations(world, change, says):
    world.mirror("mod.py", world.decl("fake.mod:f", OURS, **change))
    assert says in world.fails(RUN)


@pytest.mark.parametrize("text", ["fake.mod", "fake.mod:", ":f", "fake.mod:f()", "fake/mod:f", ""])
def test_malformed_targets(world, text):
    world.mirror("mod.py", world.decl(text, OURS, fingerprint="sha256:" + "0" * 64))
    assert "is not a target" in world.fails(RUN)


def test_exception_in_a_mirror_fails_the_import_each_time_and_undoes_what_was_applied(world):
    world.mirror(
        "mod.py",
        world.decl("fake.mod:f", OURS),
        "def bad():\n    raise ImportError('nothing here')",
        world.decl("fake.mod:A.m", OURS.replace("ours", "two", 1), when="Condition(bad, otherwise='never')"),
    )
    out = world.ok(
        """
        import sys, fake_patches.prelude
        for _ in range(2):
            try:
                import fake.mod
            except ImportError:
                raise SystemExit('an ImportError would be swallowed by the upstreams')
            except RuntimeError as error:
                print(error)
            assert 'fake.mod' not in sys.modules
        from recipe.overlay import declared
        assert not declared()
        """
    )
    assert len(out.splitlines()) == 2
    assert "fake_patches.mod:two" in out and "ImportError: nothing here" in out


def test_exception_while_a_mirror_is_imported(world):
    file = world.mirror("mod.py", world.decl("fake.mod:f", OURS), "1 / 0")
    last = world.fails(RUN)
    assert f"{file}: importing it after fake.mod raised ZeroDivisionError" in last


def test_upstream_that_fails_once_is_patched_when_it_succeeds(world):
    world.upstream(
        "flaky.py", "import os\nif 'OK' not in os.environ:\n    raise ImportError('not yet')\ndef f(): return 0\n"
    )
    world.mirror("flaky.py", world.decl("fake.flaky:f", "def f(original): return 'ours'"))
    world.ok(
        """
        import os, fake_patches.prelude
        try:
            import fake.flaky
            raise SystemExit('should have failed')
        except ImportError:
            os.environ['OK'] = '1'
        import fake.flaky
        assert fake.flaky.f() == 'ours'
        """
    )


def test_target_that_somebody_else_replaced_first(world):
    world.upstream("thief.py", "import fake.mod\ndef f(x): return 'stolen'\nfake.mod.f = f\n")
    world.mirror("mod.py", world.decl("fake.mod:f", OURS))
    last = world.fails("import fake.thief, fake_patches.prelude")
    assert "DriftError" in last and "somebody else replaced it" in last and "thief.py" in last
    world.mirror("mod.py", world.decl("fake.mod:f", "def f(original, x): return original(x) + '!'", over=("fake",)))
    assert world.ok("import fake.thief, fake_patches.prelude; print(fake.mod.f(1))") == "stolen!"


def test_wrapper_that_says_what_it_wraps_is_no_replacement(world):
    world.upstream(
        "deco.py",
        "import functools, fake.mod\n_f = fake.mod.f\n@functools.wraps(_f)\ndef g(*a): return ('g', _f(*a))\n"
        "fake.mod.f = g\ndel g\n",
    )
    world.mirror("mod.py", world.decl("fake.mod:f", "def f(original, x): return ('ours', original(x))"))
    code = "import fake.deco\ndel fake.deco._f\nimport fake_patches.prelude; print(fake.mod.f.__wrapped__)"
    assert "function f" in world.ok(code)


def test_place_that_does_not_keep_what_is_put_there(world):
    world.upstream(
        "mod.py",
        "class M(type):\n    def __setattr__(cls, k, v): pass\nclass A(metaclass=M):\n    def m(self): return 0\n",
    )
    world.mirror("mod.py", world.decl("fake.mod:A.m", OURS))
    assert "did not keep what was put there" in world.fails(RUN)


def test_revert_refuses_to_bury_a_later_change(world):
    world.mirror("mod.py", world.decl("fake.mod:f", OURS))
    last = world.fails(RUN + "\nfake.mod.f = print\nfrom recipe.overlay import revert\nrevert()")
    assert "fake.mod.f was changed after us" in last


def test_module_that_runs_as_main_is_refused_for_it_would_stay_unpatched(world):
    world.upstream("main.py", "import fake_patches.prelude\ndef main(): pass\nmain()\n")
    world.mirror("main.py", world.decl("fake.main:main", OURS))
    done = world.run("", "-m", "fake.main")
    assert done.returncode == 1 and "runs as __main__ and so never imports" in done.stderr


def test_mirror_of_another_checkout_on_the_path_is_refused(world, tmp_path):
    world.mirror("mod.py", world.decl("fake.mod:f", OURS))
    foreign = tmp_path / "other" / "fake_patches"
    foreign.mkdir(parents=True)
    (foreign / "__init__.py").write_text("")
    (foreign / "mod.py").write_text("")
    last = world.fails(
        f"import sys; sys.path.insert(0, {str(foreign.parent)!r})\nfrom pathlib import Path\n"
        f"from recipe.overlay import install\ninstall(Path({str(world.root)!r}))\nimport fake.mod"
    )
    assert "check PYTHONPATH" in last


def test_a_patch_that_is_refused_leaves_the_others_live(world):
    world.upstream("other.py", "def g(): return 'stock'\n")
    world.mirror("mod.py", world.decl("fake.mod:f", "def f(original, x): return 'ours'"))
    world.mirror("other.py", world.decl("fake.other:g", OURS, fingerprint="sha256:" + "0" * 64))
    world.ok(
        """
        import fake_patches.prelude, fake.mod
        try:
            import fake.other
        except RuntimeError as error:
            assert "fake_patches.other:ours" in str(error)
        assert fake.mod.f(1) == "ours"
        """
    )
