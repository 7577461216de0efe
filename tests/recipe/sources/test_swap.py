# SPDX-License-Identifier: Apache-2.0
"""Whatever happens to a sync, and whenever: `upstream/` is the old tree or the new one, whole."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import subprocess
from pathlib import Path

import pytest

from recipe.sources import swap


def changes(event, details):
    """Whether an audit event announces a change of the file system below the checkout, or the exchange."""
    if event == "open":
        writes = isinstance(details[1], str) and details[1][0] in "wax"
    else:
        writes = event in ("os.rename", "os.mkdir")
    # Files are deleted relative to a directory, so their paths do not say where they are.
    return (
        (writes and "checkout" in str(details[0]))
        or event in ("os.remove", "os.rmdir")
        or (event == "ctypes.dlsym" and details[1] == "renameat2")
    )


@pytest.mark.parametrize("way", ["exchange", "two renames"])
def test_killed_at_any_moment_leaves_no_half_tree(checkout, way, monkeypatch):
    """SIGKILL before every single file operation of a sync; then a plain sync puts it right."""
    rmtree = shutil.rmtree

    def manifest_first(path, **options):
        """Delete in the worst order; which one it is, is otherwise the file system's choice."""
        (Path(path) / "MANIFEST.json").unlink(missing_ok=True)
        rmtree(path, **options)

    monkeypatch.setattr(shutil, "rmtree", manifest_first)
    if way == "two renames":
        monkeypatch.setattr(swap, "_exchange", lambda first, second: False)
    checkout.sync()
    wanted = checkout.content()
    mine = checkout.upstream / "mindspeed" / "mine.py"
    mine.parent.mkdir()
    mine.write_text("mine")
    step = without = 0
    while True:
        (checkout.upstream / "alpha" / "__init__.py").write_text("changed")  # so that there is something to do
        killed = checkout.killed(changes, step)
        content = checkout.content()
        without += not content
        content.pop("mindspeed/mine.py", None)
        if content or way == "exchange":
            changed = {**wanted, "alpha/__init__.py": "changed"}
            assert content in (wanted, changed), f"half a tree after operation {step}"
        if not killed:
            break
        repaired = checkout.sync()
        assert repaired.returncode == 0, repaired.stderr
        assert checkout.content() == {**wanted, "mindspeed/mine.py": "mine"}, f"after operation {step}"
        assert [p.name for p in (checkout.root / ".cache").iterdir()] == ["sync.lock"]
        step += 1
    assert step > 40 and without == (0 if way == "exchange" else 1)


def test_no_moment_without_upstream(checkout, monkeypatch):
    checkout.sync()
    watched = checkout.upstream / "alpha" / "__init__.py"
    seen = []
    rename = Path.rename

    def watching(self, target):
        moved = rename(self, target)
        seen.append(watched.read_text())
        return moved

    monkeypatch.setattr(Path, "rename", watching)
    checkout.wheel({
        "alpha/__init__.py": "V = 2\n", "alpha/worker.py": checkout.worker,
        "alpha-1.0.dist-info/METADATA": "Name: alpha\nVersion: 1.0\n",
    })  # fmt: skip
    (checkout.upstream / "mine").mkdir()
    checkout.pin()
    (checkout.cache / "sources" / "alpha-1.0-py3-none-any.whl").unlink()
    assert checkout.sync().returncode == 0
    assert len(seen) > 1 and set(seen) == {"V = 1\n", "V = 2\n"} and (checkout.upstream / "mine").is_dir()


def test_second_rename_fails(checkout, monkeypatch):
    checkout.sync()
    before = checkout.content()
    rename = Path.rename

    def failing(self, target):
        if self.name == "upstream-new" and target == checkout.upstream:
            raise OSError(errno.EIO, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(swap, "_exchange", lambda first, second: False)
    (checkout.upstream / "alpha" / "__init__.py").write_text("changed")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", failing)
        assert "Input/output error" in checkout.fails()
    assert checkout.sync().returncode == 0 and checkout.content() == before


def test_what_stands_in_the_way_is_set_aside(checkout):
    """A directory that no sync has brought is never deleted, also when a pin needs its name."""
    path, commit = checkout.repository()
    checkout.pin_git(commit)
    for text, place in (("mine", "gamma"), ("mine too", "gamma-2")):
        mine = checkout.upstream / "gamma" / "mine.py"
        mine.parent.mkdir(parents=True, exist_ok=True)
        mine.write_text(text)
        assert checkout.sync().returncode == 0 and mine.read_text() == text
        done = checkout.sync("--with", "gamma", "--from", f"gamma={path}")
        kept = checkout.root / ".cache" / "set-aside" / place
        assert f"upstream/gamma was not brought by sync and is in the way; moved to {kept}" in done.stdout
        assert (kept / "mine.py").read_text() == text and not mine.exists()
        assert checkout.sync("--check").returncode == 0
        assert checkout.sync("--without", "gamma").returncode == 0 and not mine.parent.exists()


def test_damaged_manifest(checkout):
    checkout.sync()
    wanted = checkout.content()
    (checkout.upstream / "MANIFEST.json").write_text('{"files": ')
    (checkout.upstream / "mine.txt").write_text("mine")
    assert "was not made by sync" in checkout.sync("--check").stdout
    assert checkout.sync().returncode == 0
    assert checkout.content() == {**wanted, "mine.txt": "mine"}


def test_upstream_is_a_link(checkout, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    checkout.upstream.symlink_to(tmp_path / "elsewhere")
    assert "is a link" in checkout.fails()


def test_disk_that_takes_no_large_file(checkout):
    """The kernel refuses the write in the middle of a file (here by a limit on the size of files)."""
    checkout.sync()
    before = checkout.content()
    (checkout.upstream / "alpha" / "__init__.py").write_text("V = 4\n")
    limit = 1000
    assert (checkout.upstream / "MANIFEST.json").stat().st_size > limit
    done = subprocess.run(
        checkout.command(), env=checkout.environment(), cwd=checkout.root, capture_output=True, check=False, text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)), timeout=60,
    )  # fmt: skip
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "cannot write" in done.stderr, done.stderr
    assert checkout.content() == {**before, "alpha/__init__.py": "V = 4\n"}
    assert [p.name for p in (checkout.root / ".cache").iterdir()] == ["sync.lock"]
    assert checkout.sync().returncode == 0 and checkout.content() == before


@pytest.mark.parametrize(
    ("code", "says"), [(errno.ENOSPC, "no room on the disk of"), (errno.EROFS, "cannot write"), (errno.EIO, "cannot")]
)
def test_full_and_read_only_disk(checkout, monkeypatch, code, says):
    checkout.sync()
    (checkout.upstream / "alpha" / "__init__.py").write_text("V = 4\n")

    def refused(self, content):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Path, "write_bytes", refused)
    assert says in checkout.fails()
    assert [p.name for p in (checkout.root / ".cache").iterdir()] == ["sync.lock"]


def test_read_only_disk_with_a_tree_that_is_up_to_date(checkout, monkeypatch):
    checkout.sync()
    real = Path.open

    def refused(self, mode="r", *more, **options):
        if "w" in mode:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(self))
        return real(self, mode, *more, **options)

    monkeypatch.setattr(Path, "open", refused)
    assert "up to date" in checkout.sync().stdout
    (checkout.upstream / "alpha" / "__init__.py").unlink()
    line = checkout.fails()
    assert "Read-only file system" in line and "make it writable" in line and str(checkout.root) in line


def test_two_at_once(checkout):
    children = [
        subprocess.Popen(
            checkout.command(), env=checkout.environment(), cwd=checkout.root, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    outputs = [child.communicate(timeout=60)[0] for child in children]
    assert [child.returncode for child in children] == [0, 0, 0]
    assert sum("synced" in out for out in outputs) == 1 and sum("up to date" in out for out in outputs) == 2
