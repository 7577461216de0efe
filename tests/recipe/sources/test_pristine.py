# SPDX-License-Identifier: Apache-2.0
"""The pinned text of one upstream module, from the cache, as the tree at hand was made from it."""

from __future__ import annotations

import shutil

import pytest

from recipe.sources.pristine import module_text


@pytest.fixture
def synced(checkout, monkeypatch):
    """A synced checkout with a git pin beside, its network gone, and the cache known to this process."""
    path, commit = checkout.repository()
    checkout.pin_git(commit)
    assert checkout.sync("--with", "gamma", "--from", f"gamma={path}").returncode == 0
    checkout.archives.rename(checkout.archives.with_name("gone"))
    shutil.rmtree(path)
    monkeypatch.setenv("RECIPE_CACHE_DIR", str(checkout.cache))
    return checkout


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("alpha", "V = 1\n"),  # wheel
        ("beta.core", "W = 2\n"),  # sdist
        ("gamma", "G = 1\n"),  # git
    ],
)
def test_text_as_pinned_whatever_stands_on_disk(synced, module, text):
    file = synced.upstream.joinpath(*module.split("."), "__init__.py")
    assert file.read_text() == text
    file.write_text("changed")
    assert module_text(module, synced.root) == text
    file.unlink()
    assert module_text(module, synced.root) == text


def test_without_our_line(synced):
    assert "from ours import prelude" in (synced.upstream / "alpha" / "worker.py").read_text()
    assert module_text("alpha.worker", synced.root) == synced.worker


def test_of_the_tree_that_is_there_not_of_newer_pins(synced):
    """upstreams.toml has moved on since the last sync: what was found came from the old pins."""
    pins = synced.root / "upstreams.toml"
    pins.write_text(pins.read_text().replace("alpha-1.0-py3", "alpha-1.1-py3"))
    assert module_text("alpha", synced.root) == "V = 1\n"


def test_none_when_it_is_not_to_be_had(synced):
    for module in ("alpha.gone", "delta", "alpha.data", "os"):
        assert module_text(module, synced.root) is None
    wheel = synced.cache / "sources" / "alpha-1.0-py3-none-any.whl"
    wheel.write_bytes(wheel.read_bytes() + b"x")
    assert module_text("alpha", synced.root) is None  # not the pinned archive
    shutil.rmtree(synced.cache)
    for module in ("alpha", "beta.core", "gamma"):
        assert module_text(module, synced.root) is None
    (synced.upstream / "MANIFEST.json").write_text('{"files": {"alpha/__init__.py": ""}, "upstreams": {"alpha": 1}}')
    assert module_text("alpha", synced.root) is None
    shutil.rmtree(synced.upstream)
    assert module_text("alpha", synced.root) is None


def test_without_git(synced, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert module_text("gamma", synced.root) is None and module_text("alpha", synced.root) == "V = 1\n"
