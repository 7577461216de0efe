# SPDX-License-Identifier: Apache-2.0
"""Wheels and sdists that are hostile, damaged, or not what the pin says."""

from __future__ import annotations

import shutil
import tarfile

import pytest


@pytest.mark.parametrize("name", ["../evil.py", "/etc/evil.py", "alpha/../../evil.py", "alpha\\..\\evil.py"])
def test_wheel_that_would_leave_the_directory(checkout, name):
    checkout.wheel(
        {"alpha/worker.py": checkout.worker, "alpha-1.0.dist-info/METADATA": "Name: alpha\nVersion: 1.0\n", name: "x"}
    )
    checkout.pin()
    assert "would leave the directory" in checkout.fails()
    assert not list(checkout.root.parent.rglob("evil.py"))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_sdist_with_a_link_among_the_wanted_files(checkout, kind):
    info = tarfile.TarInfo("beta_core-2.0/beta/evil.py")
    info.type, info.linkname = kind, "/etc/passwd"
    outside = tarfile.TarInfo("beta_core-2.0/docs/link")
    outside.type, outside.linkname = tarfile.SYMTYPE, "../README"
    members = [("beta_core-2.0/PKG-INFO", "Name: beta-core\nVersion: 2.0\n"), ("beta_core-2.0/beta/__init__.py", "")]
    checkout.sdist(members, outside)
    checkout.pin()
    assert checkout.sync().returncode == 0  # links elsewhere are not our business
    checkout.sdist(members, info)
    checkout.pin()
    shutil.rmtree(checkout.cache)
    assert "is a link or a special file" in checkout.fails()


def test_sdist_that_would_leave_the_directory(checkout):
    checkout.sdist(
        [("beta_core-2.0/PKG-INFO", "Name: beta-core\nVersion: 2.0\n"), ("beta_core-2.0/../../evil.py", "x")]
    )
    checkout.pin()
    assert "would leave the directory" in checkout.fails()


@pytest.mark.parametrize(
    ("members", "says"),
    [
        ([("b/PKG-INFO", "Name: gamma\nVersion: 2.0\n"), ("b/beta/__init__.py", "")], "metadata says gamma 2.0"),
        ([("b/PKG-INFO", "Name: beta-core\nVersion: 2.1\n"), ("b/beta/__init__.py", "")], "beta-core 2.1, expected"),
        ([("b/PKG-INFO", "Name: beta-core\nVersion: 2.0\n")], "no package directory beta"),
        ([("b/PKG-INFO", "Name: beta-core\nVersion: 2.0\n"), ("b/beta/__init__.py", ""), ("b/alpha/x.py", "")], None),
    ],
)
def test_archive_that_is_not_what_the_pin_says(checkout, members, says):
    checkout.sdist(members)
    checkout.pin()
    if says is None:
        assert checkout.sync().returncode == 0 and "alpha/x.py" not in checkout.content()
    else:
        assert says in checkout.fails()


def test_archive_that_is_none(checkout):
    for name in ("alpha-1.0-py3-none-any.whl", "beta_core-2.0.tar.gz"):
        good = (checkout.archives / name).read_bytes()
        (checkout.archives / name).write_bytes(b"not an archive" * 100)
        checkout.pin()
        assert "not a readable" in checkout.fails()
        shutil.rmtree(checkout.cache)
        (checkout.archives / name).write_bytes(good)
