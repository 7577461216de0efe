# SPDX-License-Identifier: Apache-2.0
"""Import, install, apply and revert in every order, and modules that are in the middle of their own import."""

from __future__ import annotations

import itertools

import pytest

WORDS = ["".join(word) for n in (1, 2, 3) for word in itertools.product("IPR", repeat=n) if "I" in word]
WORDS += ["IPRP", "PIRP", "RPIR", "IPPR", "PPII", "IRPR", "PRIP", "IPRI"]


def test_there_are_at_least_seventeen_orders():
    assert len(WORDS) >= 17


@pytest.mark.parametrize("word", WORDS)
def test_orders_of_import_patch_and_revert(world, word):
    world.mirror("mod.py", world.decl("fake.mod:f", "def f(original, x): return 'ours'"),
                 world.decl("fake.mod:A.m", "def m(original, self, x): return 'ours'"))  # fmt: skip
    imported = installed = live = False
    steps = []
    for letter in word:
        if letter == "I":
            live = installed if not imported else live
            imported = True
            steps.append("import fake.mod as m")
        elif letter == "P":
            installed, live = True, imported
            steps.append("import fake_patches.prelude; apply()")
        else:
            live = False
            steps.append("revert()")
        if imported:
            expected = "'ours'" if live else "2"
            steps.append(f"assert m.f(1) == {expected} and (m.A().m(1) == 'ours') is {live}")
            steps.append("seen.add(m.f.__wrapped__ if hasattr(m.f, '__wrapped__') else m.f)")
    steps.append("assert len(seen) == 1, seen")  # the same original all along, never a wrapper around a wrapper
    world.ok("from recipe.overlay import apply, revert\nseen = set()\n" + "\n".join(steps))


def test_prelude_in_the_middle_of_the_module_that_is_patched(world):
    world.upstream(
        "worker.py",
        "import os\nfrom fake_patches import prelude\nfrom fake.mod import f\nclass W:\n    def run(self):\n"
        "        return f(1)\n",
    )
    world.mirror(
        "worker.py", world.decl("fake.worker:W.run", "def run(original, self): return ('ours', original(self))")
    )
    world.mirror("mod.py", world.decl("fake.mod:f", "def f(original, x): return 'f'"))
    world.ok(
        """
        import importlib.machinery, fake.worker as w
        assert w.W().run() == ('ours', 'f')
        assert type(w.__spec__) is importlib.machinery.ModuleSpec and w.__spec__._initializing is False
        """
    )


def test_prelude_from_the_init_of_the_package(world):
    world.upstream("__init__.py", "from .mod import A\nimport fake_patches.prelude\ndef late():\n    return 1\n")
    world.mirror("__init__.py", world.decl("fake:late", "def late(original): return 'ours'"))
    world.mirror("mod.py", world.decl("fake.mod:A.m", "def m(original, self, x): return 'ours'"))
    assert world.ok("import fake; print(fake.A().m(1), fake.late())") == "ours ours"


def test_circular_import_between_upstreams(world):
    world.upstream("a.py", "def f(): return 0\nimport fake.b\n")
    world.upstream("b.py", "from fake.a import f\ndef g(): return f()\n")
    patch = "def f(original): return 'ours'"
    world.mirror("a.py", world.decl("fake.a:f", patch))
    world.mirror("b.py", world.decl("fake.b:g", "def g(original): return original()"))
    assert "fake.b:f holds a copy" in world.fails("import fake_patches.prelude, fake.a")
    world.mirror("a.py", world.decl("fake.a:f", patch, aliases=("fake.b:f",)))
    assert world.ok("import fake_patches.prelude, fake.a; print(fake.b.g(), fake.a.f())") == "ours ours"


def test_mirror_imported_before_its_upstream(world):
    world.mirror("mod.py", "from fake.mod import A", world.decl("fake.mod:f", "def f(original, x): return 'ours'"))
    assert world.ok("import fake_patches.prelude, fake_patches.mod, fake.mod; print(fake.mod.f(1))") == "ours"
    world.ok("import fake_patches.mod, fake.mod; assert fake.mod.f(1) == 2\n"
             "import fake_patches.prelude; assert fake.mod.f(1) == 'ours'")  # fmt: skip


def test_threads_never_see_the_module_unpatched(world):
    world.upstream("slow.py", "import time\ndef f(): return 0\ntime.sleep(0.2)\n")
    world.mirror("slow.py", "import time", "time.sleep(0.2)", world.decl("fake.slow:f", "def f(original): return 1"))
    world.ok(
        """
        import threading, fake_patches.prelude
        seen = []
        def use():
            import fake.slow
            seen.append(fake.slow.f())
        threads = [threading.Thread(target=use) for _ in range(4)]
        [t.start() for t in threads]; [t.join() for t in threads]
        assert seen == [1] * 4, seen
        """
    )


def test_installed_by_another_thread_while_the_module_executes(world):
    world.upstream("slow.py", "import time\ndef f(): return 0\nstarted.set()\ntime.sleep(0.3)\n"
                   .replace("started", "__import__('builtins').started"))  # fmt: skip
    world.mirror("slow.py", world.decl("fake.slow:f", "def f(original): return 1"))
    world.ok(
        """
        import builtins, threading
        builtins.started = threading.Event()
        thread = threading.Thread(target=lambda: __import__('fake.slow'))
        thread.start()
        builtins.started.wait()
        import fake_patches.prelude
        thread.join()
        import fake.slow
        assert fake.slow.f() == 1
        """
    )


def test_install_is_idempotent_and_cheap(world):
    world.mirror("mod.py", world.decl("fake.mod:f", "def f(original, x): return original(x) + 1"))
    world.ok(
        """
        import sys, fake.mod
        import fake_patches.prelude
        from pathlib import Path
        from recipe.overlay import install
        install(Path(fake_patches.prelude.__file__).parents[1]); install(Path(fake_patches.prelude.__file__).parents[1])
        assert fake.mod.f(1) == 3
        assert not {'torch', 'ray', 'numpy', 'verl', 'vllm', 'argparse', 'tomllib'} & sys.modules.keys()
        """
    )


def test_revert_reaches_modules_that_imported_the_patched_name(world):
    world.upstream("user.py", "from fake.mod import f as g\nclass U:\n    from fake.mod import f\n")
    world.mirror("mod.py", world.decl("fake.mod:f", "def f(original, x): return 'ours'", aliases=("fake.user:U.f",)))
    world.ok(
        """
        import fake_patches.prelude, fake.mod, fake.user
        from recipe.overlay import apply, revert
        def all_of_them():
            return {fake.mod.f, fake.user.g, vars(fake.user.U)['f']}
        def check():  # a function, because this program's own globals are reached, too
            (ours,) = all_of_them()
            revert()
            (original,) = all_of_them()
            assert original is ours.__wrapped__ and original(1) == 2
            apply()
            (again,) = all_of_them()
            assert again.__wrapped__ is original and again(1) == 'ours'
            revert()
            assert all_of_them() == {original}
        check()
        """
    )
