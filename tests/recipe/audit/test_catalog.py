# SPDX-License-Identifier: Apache-2.0
"""The catalogue is what the declarations say, in every file that shows it."""

from __future__ import annotations

import pytest

from recipe.audit import catalog
from recipe.audit.declarations import collect
from recipe.overlay.errors import OverlayError

PAGE = f"# Title\n\nbefore\n\n{catalog.BEGIN}\nold\n{catalog.END}\n\nafter\n"


@pytest.fixture
def tree(world):
    world.mirror("mod.py", "from fake_patches.helper import part\noff = Condition(bool, otherwise='it is off')",
                 world.decl("fake.mod:f", "def f(original, x): return part", why="a|b", aliases=("fake.user:f",)),
                 world.decl("fake.mod:A.m", "def m(original, self, x): return 0", when="off"))  # fmt: skip
    world.mirror("helper.py", "part = 1")
    world.mirror("door.py", '"""What the upstream loads by its name.\n\nMore of it."""\nX = 1\n')
    for name in catalog.SUMMARY_IN:
        (world.root / name).write_text(PAGE)
    return world.root


def test_write_then_up_to_date(tree):
    assert len(catalog.outdated(tree)) == 3
    assert len(catalog.write(tree)) == 3
    assert catalog.outdated(tree) == [] and catalog.write(tree) == []
    page = (tree / "README.md").read_text()
    assert page.startswith("# Title\n\nbefore\n") and page.endswith("\nafter\n") and "\nold\n" not in page
    assert f"{catalog.BEGIN}\n**2**: fake 2\n{catalog.END}" in page
    assert f"{catalog.BEGIN}\n**2**: fake 2\n{catalog.END}" in (tree / "README_zh.md").read_text(encoding="utf-8")
    full = (tree / "docs" / "PATCHES.md").read_text()
    for patch in collect(tree):
        assert patch.id in full and str(patch.target) in full and patch.why in full and patch.remove_when in full
    assert full.count("**left out where**: it is off\n") == 1 and "**also at**: `fake.user:f`" in full
    before, beside = full.split("## Beside the patches")
    f, m = before.split("### ")[1:]
    assert "**together with**: [`fake_patches/helper.py`](../fake_patches/helper.py)\n" in f and "helper" not in m
    assert beside.count("- ") == 2 and "[`fake_patches/prelude.py`]" in beside
    assert "- [`fake_patches/door.py`](../fake_patches/door.py): What the upstream loads by its name.\n" in beside


def test_a_new_declaration_makes_it_outdated(tree, world):
    catalog.write(tree)
    world.mirror("more.py", world.decl("fake.mod:f", "def f(original, x): return 0").replace("fake.mod", "fake.more"))
    assert {file.name for file in catalog.outdated(tree)} == {"README.md", "README_zh.md", "PATCHES.md"}


@pytest.mark.parametrize("page", ["", PAGE + catalog.BEGIN, f"{catalog.END}\n{catalog.BEGIN}\n"])
def test_a_readme_without_a_place_for_it(tree, page):
    (tree / "README.md").write_text(page)
    with pytest.raises(OverlayError, match=r"README\.md must have the line"):
        catalog.write(tree)
    assert not (tree / "docs").exists() and (tree / "README_zh.md").read_text() == PAGE


def test_the_catalogue_of_this_repository_is_up_to_date():
    assert catalog.outdated() == []
