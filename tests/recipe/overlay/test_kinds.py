# SPDX-License-Identifier: Apache-2.0
"""Each kind of patch does what it says, keeps what it should keep, and comes off without a trace."""

from __future__ import annotations

import pytest


def test_wrap_function_keeps_signature_attributes_and_identity_on_revert(world):
    world.upstream("mod.py", "def f(x, y=1):\n    'doc'\n    return x + y\nf.magic = {'mode': 1}\n")
    world.mirror("mod.py", world.decl("fake.mod:f", "def ours(original, x, y=1): return original(x, y) * 10"))
    world.ok(
        """
        import inspect, pickle, fake.mod as m
        original = m.f
        import fake_patches.prelude
        assert m.f(1) == 20 and m.f(1, y=2) == 30
        assert m.f.magic == {'mode': 1}
        assert (m.f.__name__, m.f.__doc__, m.f.__module__) == ('f', 'doc', 'fake.mod')
        assert str(inspect.signature(m.f)) == '(x, y=1)'
        assert pickle.loads(pickle.dumps(m.f)) is m.f
        from recipe.overlay import revert, apply
        revert(); revert()
        assert m.f is original and m.f(1) == 2
        apply(); apply('fake_patches.mod:ours'); apply()
        assert m.f(1) == 20 and m.f.__wrapped__ is original
        revert()
        assert m.f is original
        """
    )


def test_wrap_members_of_a_class(world):
    world.mirror(
        "mod.py",
        world.decl("fake.mod:A.m", "def m(original, self, x): return ('ours', type(self).__name__, original(self, x))"),
        world.decl("fake.mod:A.s", "def s(original, x): return ('ours', original(x))"),
        world.decl("fake.mod:A.c", "def c(original, cls, x): return ('ours', original(cls, x))"),
        world.decl("fake.mod:A.p", "def p(original, self): return original(self) + 100"),
        world.decl("fake.mod:A.cp", "def cp(original, self): return original(self) + 100"),
    )
    world.ok(
        """
        import fake.mod as m
        before = dict(vars(m.A))
        import fake_patches.prelude
        a = m.A()
        assert a.m(1) == ('ours', 'A', ('m', 1)) and m.B().m(1)[1] == 'B'
        assert m.A.s(1) == a.s(1) == ('ours', ('s', 1)) and isinstance(vars(m.A)['s'], staticmethod)
        assert m.A.c(1) == ('ours', (m.A, 1)) and m.B.c(1) == ('ours', (m.B, 1))
        assert isinstance(vars(m.A)['c'], classmethod)
        assert a.p == 101
        a.p = 5
        assert a.p == 105
        assert a.cp == 101 and a.__dict__['cp'] == 101
        from recipe.overlay import revert
        revert()
        assert all(vars(m.A)[k] is v for k, v in before.items()) and len(vars(m.A)) == len(before)
        """
    )


def test_wrap_coroutine_function_and_cached_function(world):
    world.mirror(
        "mod.py",
        world.decl("fake.mod:co", "async def co(original, x): return await original(x) + 1"),
        world.decl("fake.mod:cached", "def cached(original, x): return (original(x),)"),
    )
    world.ok(
        """
        import asyncio, inspect, fake_patches.prelude, fake.mod as m
        assert inspect.iscoroutinefunction(m.co) and asyncio.run(m.co(1)) == 2
        assert m.cached(1)[0] is m.cached(1)[0] and m.cached.cache_info().hits == 1
        """
    )


@pytest.mark.parametrize("kind", ["wrap", "replace"])
@pytest.mark.parametrize("target", ["A", "CONST"])
def test_only_functions_are_wrapped_or_replaced(world, target, kind):
    world.mirror("mod.py", world.decl(f"fake.mod:{target}", "def ours(original): pass", kind=kind))
    name = "type" if target == "A" else "int"
    assert f"fake.mod:{target} is {name}, which cannot be wrapped or replaced" in world.fails(
        "import fake_patches.prelude, fake.mod"
    )


def test_only_functions_are_decorated(world):
    world.mirror("mod.py", world.decl("fake.mod:A", "class Ours: pass", kind="replace"))
    assert "patch on fake.mod:A: decorate a function" in world.fails("import fake_patches.prelude, fake.mod")


def test_plain_function_around_a_coroutine_is_refused(world):
    world.mirror("mod.py", world.decl("fake.mod:co", "def ours(original, x): pass"))
    assert "coroutine function; make ours one" in world.fails("import fake_patches.prelude, fake.mod")


def test_replace_function_and_method(world):
    world.upstream("mod.py", "def g(): return 0\ng.mark = 1\nclass A:\n    @staticmethod\n    def s(): return 0\n")
    world.mirror(
        "mod.py",
        world.decl("fake.mod:g", "def g(): return 1", kind="replace"),
        world.decl("fake.mod:A.s", "def s(): return 1", kind="replace"),
    )
    world.ok(
        """
        import fake.mod as m
        before = (m.g, vars(m.A)['s'])
        import fake_patches.prelude, fake_patches.mod as ours
        assert m.g is ours.g and m.g() == 1 and m.g.mark == 1
        assert m.A.s() == m.A().s() == 1
        from recipe.overlay import revert, status
        assert {s['patch']: s['status'] for s in status()}['fake_patches.mod:s'] == 'applied'
        revert()
        assert all(x is y for x, y in zip(before, (m.g, vars(m.A)['s'])))
        """
    )


def test_registry_entry_with_tuple_key_and_new_entry(world):
    world.mirror(
        "mod.py",
        world.decl("fake.mod:REGISTRY", "def a(): return 'ours'", kind="registry", key=("vllm", "sync")),
        world.decl("fake.mod:REGISTRY[x]", "def b(): return 2", kind="registry"),
        world.decl("fake.mod:REGISTRY[new]", "def c(): return 3", kind="registry"),
    )
    world.ok(
        """
        import fake_patches.prelude, fake.mod as m
        assert m.REGISTRY == {('vllm', 'sync'): 'ours', 'x': 2, 'new': 3}
        from recipe.overlay import revert, status
        assert status()[0]['target'] == "fake.mod:REGISTRY[('vllm', 'sync')]"
        revert()
        assert m.REGISTRY == {('vllm', 'sync'): 'stock', 'x': 1}
        """
    )


def test_submodule_takes_the_place_of_one_that_cannot_be_imported(world):
    world.upstream("ext/__init__.py", "")
    world.upstream("ext/te.py", "import module_that_is_not_installed\n")
    world.upstream("user.py", "try:\n    from fake.ext.te import Linear\nexcept ImportError:\n    Linear = None\n")
    body = "def te():\n    import types\n    m = types.ModuleType('standin')\n    m.Linear = 'ours'\n    return m"
    world.mirror("ext/__init__.py", world.decl("fake.ext:te", body, kind="submodule"))
    world.ok(
        """
        import sys, importlib.util, fake_patches.prelude, fake.user
        assert fake.user.Linear == 'ours' and fake.ext.te.Linear == 'ours'
        assert importlib.util.find_spec('fake.ext.te') is not None
        from recipe.overlay import revert
        revert()
        assert 'fake.ext.te' not in sys.modules and not hasattr(fake.ext, 'te')
        """
    )


def test_submodule_imported_before_is_an_error(world):
    world.upstream("ext/__init__.py", "")
    world.upstream("ext/te.py", "")
    world.mirror("ext/__init__.py", world.decl("fake.ext:te", "def te(): pass", kind="submodule"))
    for before in ("fake.ext.te", "fake.ext"):  # somebody may have tried te, without it, and gone another way
        last = world.fails(f"import {before}, fake_patches.prelude")
        assert "fake.ext was imported before the overlay could put its own te into it" in last


def test_when_false_leaves_the_target_alone_and_says_why(world):
    world.mirror(
        "mod.py",
        "off = Condition(lambda: False, otherwise='Transformer Engine is installed')",
        world.decl("fake.mod:f", "def f(original, x): return 0", when="off"),
        world.decl("fake.mod:A.m", "def m(original, self, x): return 0", when="Condition(int, otherwise='never')"),
        world.decl("fake.mod:A.s", "def s(original, x): return 0", when="Condition(lambda: True, otherwise='no')"),
    )
    world.ok(
        """
        import fake_patches.prelude, fake.mod as m
        from recipe.overlay import status
        assert m.f(1) == 2 and m.A().m(1) == ('m', 1) and m.A().s(1) == 0
        assert [(s['status'], s['reason']) for s in status()] == [
            ('skipped', 'Transformer Engine is installed'), ('skipped', 'never'), ('applied', '')]
        """
    )


@pytest.mark.parametrize(
    ("when", "says"),
    [
        ("lambda: False", "expected Condition(function, otherwise='...')"),
        ("Condition(int, otherwise=' ')", "otherwise=' ': expected a text"),
    ],
)
def test_a_condition_without_a_text_of_why_is_refused(world, when, says):
    world.mirror("mod.py", world.decl("fake.mod:f", "def f(original, x): return 0", when=when))
    assert says in world.fails("import fake_patches.prelude, fake.mod")


def test_aliases_are_rebound_before_and_after_import_and_reverted(world):
    world.upstream("early.py", "from fake.mod import f as g\n")
    world.upstream("late.py", "from fake.mod import f\n")
    world.mirror(
        "mod.py",
        world.decl("fake.mod:f", "def f(original, x): return 'ours'", aliases=("fake.early:g", "fake.late:f")),
    )
    world.ok(
        """
        import fake.early, fake.mod as m
        original = m.f
        import fake_patches.prelude, fake.late
        assert fake.early.g is fake.late.f is m.f and m.f(1) == 'ours'
        from recipe.overlay import revert
        revert()
        assert fake.early.g is m.f is original
        """
    )


def test_alias_that_is_no_copy_is_an_error(world):
    world.upstream("late.py", "f = 1\n")
    world.mirror("mod.py", world.decl("fake.mod:f", "def f(original, x): return 0", aliases=("fake.late:f",)))
    assert "alias fake.late:f is 1, not a copy of fake.mod:f" in world.fails(
        "import fake_patches.prelude, fake.mod, fake.late"
    )
    world.mirror("mod.py", world.decl("fake.mod:f", "def f(original, x): return 0", aliases=("fake.late:gone",)))
    assert "alias fake.late:gone does not exist" in world.fails("import fake.late, fake_patches.prelude, fake.mod")


def test_a_copy_that_no_alias_names_is_an_error(world):
    world.upstream("user.py", "from fake.mod import f\n")
    world.mirror("mod.py", world.decl("fake.mod:f", "def f(original, x): return 'ours'"))
    last = world.fails("import fake.user, fake_patches.prelude")
    assert "fake.user:f holds a copy of fake.mod:f" in last and "aliases=" in last
    assert world.ok("import fake_patches.prelude, fake.user; print(fake.user.f(1))") == "ours"
