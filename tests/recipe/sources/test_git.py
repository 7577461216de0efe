# SPDX-License-Identifier: Apache-2.0
"""Pins from git: the tree of the pinned commit, from its URL or a local repository, each object verified."""

from __future__ import annotations

import shutil
import subprocess
import zlib

import pytest

from recipe.sources import git
from recipe.sources.errors import SourcesError
from recipe.sources.pins import Pin


def test_profile_from_a_url(checkout):
    path, commit = checkout.repository(files={"gamma/__init__.py": "G = 1\n", "alpha/worker.py": checkout.worker})
    checkout.pin_git(commit, path.as_uri(), '[a3.gamma.generate]\n"gamma/_version.py" = "v = 3"\n', '"gamma", "alpha"')
    done = checkout.sync("--profile", "a3")
    assert done.returncode == 0, done.stderr
    content = checkout.content()
    assert content["gamma/_version.py"] == "v = 3" and "from ours import prelude" in content["alpha/worker.py"]
    assert "Version: 3.0" in content["gamma-3.0.dist-info/METADATA"]
    assert "ascend = gamma:register" in content["gamma-3.0.dist-info/entry_points.txt"]
    shutil.rmtree(path)
    shutil.rmtree(checkout.upstream)
    assert checkout.sync("--profile", "a3").returncode == 0  # from the cache
    checkout.pin_git("0" * 40, path.as_uri())
    line = checkout.fails("--profile", "a3")
    assert f"cannot fetch commit {'0' * 40}" in line and "--from gamma=PATH" in line
    assert not list(checkout.cache.rglob(".part-*"))


@pytest.mark.parametrize("kind", ["checkout", "bare", "worktree"])
def test_the_commit_counts_not_the_work_tree(checkout, kind):
    path, commit = checkout.repository()
    # A later commit, a changed file, an untracked one, and an attribute that would change what `git archive` gives.
    checkout.commit(path, {"gamma/__init__.py": "G = 2\n"})
    (path / "gamma" / "__init__.py").write_text("G = 3\n")
    (path / "gamma" / "extra.py").write_text("")
    (path / ".git" / "info" / "attributes").write_text("gamma/csrc export-ignore\n*.py eol=crlf\n")
    if kind == "bare":
        checkout.git(path.parent, "clone", "-q", "--bare", str(path), "bare")
        path = path.parent / "bare"
    elif kind == "worktree":
        checkout.git(path, "worktree", "add", "-q", "../tree")
        path = path.parent / "tree"
    checkout.pin_git(commit)
    done = checkout.sync("--with", "gamma", "--from", f"gamma={path}")
    assert done.returncode == 0, done.stderr
    gamma = {name: text for name, text in checkout.content().items() if name.startswith("gamma")}
    assert gamma.pop("gamma-3.0.dist-info/METADATA").endswith("Name: gamma\nVersion: 3.0\n")
    assert gamma.pop("gamma-3.0.dist-info/entry_points.txt")
    assert gamma == {
        "gamma/__init__.py": "G = 1\n", "gamma/csrc/kernel.cpp": "int main;\n",
        "gamma-3.0.dist-info/licenses/LICENSE": "free",
    }  # fmt: skip
    shutil.rmtree(checkout.upstream)
    assert checkout.sync("--with", "gamma").returncode == 0  # the cache has it now, without a network


def test_a_repository_around_or_named_by_the_environment_has_no_say(checkout):
    path, commit = checkout.repository()
    foreign, _ = checkout.repository("other", {"gamma/__init__.py": "G = 'other'\n"})
    checkout.pin_git(commit)
    ties = {"GIT_DIR": str(foreign / ".git"), "GIT_WORK_TREE": str(foreign), "GIT_INDEX_FILE": str(foreign / "no"),
            "GIT_OBJECT_DIRECTORY": str(foreign / ".git" / "objects")}  # fmt: skip
    done = checkout.sync("--with", "gamma", "--from", f"gamma={path}", **ties)
    assert done.returncode == 0, done.stderr
    assert checkout.content()["gamma/__init__.py"] == "G = 1\n"


def test_replaced_objects_have_no_say(checkout):
    path, commit = checkout.repository()
    later = checkout.commit(path, {"gamma/__init__.py": "G = 'evil'\n"})
    checkout.git(path, "replace", commit, later)
    checkout.pin_git(commit)
    assert checkout.sync("--with", "gamma", "--from", f"gamma={path}").returncode == 0
    assert checkout.content()["gamma/__init__.py"] == "G = 1\n"


def test_commit_that_is_not_there(checkout):
    path, commit = checkout.repository()
    checkout.pin_git("1" * 40)
    line = checkout.fails("--with", "gamma", "--from", f"gamma={path}")
    assert f"commit {'1' * 40} is not in that repository (its HEAD is {commit[:12]})" in line
    assert f"type: git -C {path} fetch /nowhere/gamma.git {'1' * 40}" in line


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (None, "found nothing"),
        (lambda path: path.mkdir(), "found no git repository"),
        (lambda path: path.write_text(""), "found a file"),
    ],
)
def test_place_that_is_no_repository(checkout, make, says):
    checkout.pin_git("1" * 40)
    place = checkout.root.parent / "place"
    if make:
        make(place)
    line = checkout.fails("--with", "gamma", "--from", f"gamma={place}")
    assert says in line and "git clone /nowhere/gamma.git PATH" in line


def test_link_among_the_wanted_files(checkout):
    path, _ = checkout.repository()
    (path / "docs").symlink_to("tests")
    commit = checkout.commit(path, {})
    checkout.pin_git(commit)
    assert checkout.sync("--with", "gamma", "--from", f"gamma={path}").returncode == 0  # elsewhere: not our business
    (path / "gamma" / "passwd.py").symlink_to("/etc/passwd")
    checkout.pin_git(checkout.commit(path, {}))
    assert "gamma/passwd.py is a link or a submodule" in checkout.fails("--from", f"gamma={path}")


def test_tree_entry_that_would_leave_the_directory(checkout):
    path, commit = checkout.repository()
    blob = checkout.git(path, "rev-parse", f"{commit}:LICENSE")
    # git itself refuses to write such a tree, so it is made by hand.
    inner = subprocess.run(
        ["git", "hash-object", "-t", "tree", "-w", "--literally", "--stdin"], cwd=path, check=True, capture_output=True,
        input=b"100644 ../../evil.py\0" + bytes.fromhex(blob),
    ).stdout.decode().strip()  # fmt: skip
    outer = subprocess.run(
        ["git", "hash-object", "-t", "tree", "-w", "--literally", "--stdin"], cwd=path, check=True, capture_output=True,
        input=b"40000 gamma\0" + bytes.fromhex(inner),
    ).stdout.decode().strip()  # fmt: skip
    evil = checkout.git(path, "commit-tree", "-m", "x", outer)
    checkout.pin_git(evil)
    assert "refused" in checkout.fails("--with", "gamma", "--from", f"gamma={path}")
    assert not list(checkout.root.parent.rglob("evil.py"))


def test_damaged_or_changed_object_in_the_cache(checkout):
    path, commit = checkout.repository()
    checkout.pin_git(commit)
    assert checkout.sync("--with", "gamma", "--from", f"gamma={path}").returncode == 0
    place = checkout.cache / "git" / f"{commit}.git"
    blob = checkout.git(place, "rev-parse", f"{commit}:gamma/__init__.py")
    evil = b"G = 'evil'\n"
    for pack in (place / "objects" / "pack").glob("*.*"):
        pack.chmod(0o644)
        data = pack.read_bytes()
        pack.unlink()
        if pack.suffix == ".pack":
            subprocess.run(["git", "unpack-objects", "-q"], cwd=place, check=True, input=data)
    loose = place / "objects" / blob[:2] / blob[2:]
    loose.unlink()
    loose.write_bytes(zlib.compress(b"blob %d\0" % len(evil) + evil))
    shutil.rmtree(checkout.upstream)
    line = checkout.fails("--with", "gamma")
    assert blob in line and "delete the directory and run sync again" in line and str(place) in line
    # As it says; or bring it from the clone again.
    assert checkout.sync("--with", "gamma", "--from", f"gamma={path}").returncode == 0
    assert checkout.content()["gamma/__init__.py"] == "G = 1\n"


def test_clone_that_lacks_objects(checkout):
    path, commit = checkout.repository()
    blob = checkout.git(path, "rev-parse", f"{commit}:gamma/__init__.py")
    (path / ".git" / "objects" / blob[:2] / blob[2:]).unlink()
    checkout.pin_git(commit)
    line = checkout.fails("--with", "gamma", "--from", f"gamma={path}")
    assert f"--from gamma={path}" in line
    assert not list((checkout.cache / "git").glob("*.git"))


def test_commit_without_the_package(checkout):
    path, commit = checkout.repository(files={"delta/__init__.py": ""})
    checkout.pin_git(commit)
    assert "has no package directory gamma" in checkout.fails("--with", "gamma", "--from", f"gamma={path}")


def test_no_git(checkout, tmp_path):
    checkout.pin_git("1" * 40)
    bare = tmp_path / "bin"
    bare.mkdir()
    line = checkout.fails("--with", "gamma", PATH=str(bare))
    assert "git is not installed" in line and "install git" in line
    assert checkout.sync(PATH=str(bare)).returncode == 0  # nobody else needs it


def test_one_file(checkout):
    path, commit = checkout.repository()
    pin = Pin("gamma", "3.0", ("gamma",), git="x", commit=commit)
    into = checkout.root / "one.git"
    git.copy(pin, path, into)
    assert git.read_file(pin, into, "gamma/csrc/kernel.cpp") == b"int main;\n"
    for path in ("gamma/no.py", "gamma", "gamma/__init__.py/x", "no/such.py"):
        assert git.read_file(pin, into, path) is None
    with pytest.raises(SourcesError, match="missing or damaged"):
        git.read_file(Pin("gamma", "3.0", ("gamma",), git="x", commit="2" * 40), into, "gamma/__init__.py")
