# SPDX-License-Identifier: Apache-2.0
"""Archives from the index or from where the user says: by their SHA-256, whole or not at all."""

from __future__ import annotations

import shutil

import pytest

from recipe.sources import cache

WHEEL = "alpha-1.0-py3-none-any.whl"


def test_killed_download_restarts_cleanly(checkout):
    """Killed with the download begun, or done but not yet in its place: nothing counts, and nothing stays."""
    count = 0
    for event in ("open", "os.rename"):
        for at in range(6):
            shutil.rmtree(checkout.cache, ignore_errors=True)
            if not checkout.killed(lambda name, args, event=event: name == event and "cache/" in str(args[0]), at):
                break
            count += 1
            for file in (checkout.cache / "sources").glob("*.*"):
                assert file.name.startswith(".") or file.read_bytes() == (checkout.archives / file.name).read_bytes()
            assert not checkout.upstream.exists()
            done = checkout.sync()
            assert done.returncode == 0, done.stderr
            names = {file.name for file in (checkout.cache / "sources").iterdir()}
            assert names == {".lock", WHEEL, "beta_core-2.0.tar.gz"}
            shutil.rmtree(checkout.upstream)
    assert count >= 4


def test_killed_while_a_commit_is_brought(checkout):
    path, commit = checkout.repository()
    checkout.pin_git(commit)
    count = 0
    while checkout.killed(
        lambda name, _: name == "subprocess.Popen", count, "--with", "gamma", "--from", f"gamma={path}"
    ):
        count += 1
        # Four processes make it; only then does it count.
        assert (checkout.cache / "git" / f"{commit}.git").exists() == (count > 4)
        assert not checkout.upstream.exists()
    assert count >= 4
    assert [file.name for file in sorted((checkout.cache / "git").iterdir())] == [".lock", f"{commit}.git"]


def test_what_a_killed_download_has_left_does_not_count(checkout):
    (checkout.cache / "sources").mkdir(parents=True)
    content = (checkout.archives / WHEEL).read_bytes()
    (checkout.cache / "sources" / f".part-1-{WHEEL}").write_bytes(content[:100])
    assert checkout.sync().returncode == 0
    assert (checkout.cache / "sources" / WHEEL).read_bytes() == content
    assert not list(checkout.cache.rglob(".part-*"))


@pytest.mark.parametrize("how", ["directory", "file", "file of another name"])
def test_archive_from_a_local_place(checkout, tmp_path, how):
    place = tmp_path / "files"
    checkout.archives.rename(place)
    source = place
    if how != "directory":
        source = place / WHEEL
    if how == "file of another name":
        source = source.rename(place / "download (1)")
    done = checkout.sync("--from", f"alpha={source}", "--from", f"beta-core={place}", "--json")
    assert done.returncode == 0, done.stderr
    shutil.rmtree(place)
    shutil.rmtree(checkout.upstream)
    assert checkout.sync().returncode == 0  # it is in the cache now


def test_local_archive_that_is_another(checkout, tmp_path):
    checkout.sync()
    archive = tmp_path / WHEEL
    archive.write_bytes((checkout.archives / WHEEL).read_bytes()[:-1])
    line = checkout.fails("--from", f"alpha={archive}")
    assert str(archive) in line and "another file than the pinned one, or not whole" in line
    # The good one in the cache has not been touched.
    assert (checkout.cache / "sources" / WHEEL).read_bytes() == (checkout.archives / WHEEL).read_bytes()
    assert not list(checkout.cache.rglob(".part-*"))


def test_local_place_without_the_archive(checkout, tmp_path):
    repository, _ = checkout.repository()
    empty = tmp_path / "empty"
    empty.mkdir()
    for place, kind in ((repository, "a git repository"), (empty, "no such file"), (tmp_path / "no", "nothing")):
        line = checkout.fails("--from", f"alpha={place}")
        assert f"found {kind}, expected {WHEEL}" in line and "among the files of alpha 1.0" in line


def test_truncated_archive_whose_hash_is_pinned(checkout):
    for name in (WHEEL, "beta_core-2.0.tar.gz"):
        good = (checkout.archives / name).read_bytes()
        (checkout.archives / name).write_bytes(good[: len(good) // 2])
        checkout.pin()
        shutil.rmtree(checkout.cache, ignore_errors=True)
        assert "not a readable" in checkout.fails()
        (checkout.archives / name).write_bytes(good)


def test_cache_that_cannot_be_written(checkout):
    checkout.cache.write_text("a file")
    line = checkout.fails()
    assert f"cannot write {checkout.cache}" in line and "Not a directory" in line


def test_another_process_has_filled_the_cache_while_this_one_waited(checkout, monkeypatch):
    path, commit = checkout.repository()
    checkout.pin_git(commit)
    assert checkout.sync("--with", "gamma", "--from", f"gamma={path}").returncode == 0
    shutil.rmtree(checkout.upstream)
    shutil.rmtree(checkout.archives)
    look, seen = cache.cached, set()

    def too_late(pin):
        first = pin.name not in seen
        seen.add(pin.name)
        return None if first else look(pin)

    monkeypatch.setattr(cache, "cached", too_late)
    done = checkout.sync("--with", "gamma")
    assert done.returncode == 0, done.stderr
    assert seen == {"alpha", "beta-core", "gamma"} and "gamma/__init__.py" in checkout.content()
