# SPDX-License-Identifier: Apache-2.0
"""Options of `python -m recipe sync`: what is brought beside a profile, JSON, wrong names."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from recipe.sources import cli


@pytest.fixture
def beside(checkout):
    """A checkout with gamma, of the profile a3, beside the profile sim."""
    path, commit = checkout.repository()
    checkout.pin_git(commit)
    done = checkout.sync("--with", "gamma", "--from", f"gamma={path}")
    assert done.returncode == 0, done.stderr
    return checkout


def test_with_is_remembered_until_without(beside):
    assert beside.manifest["beside"] == ["gamma"] and beside.manifest["profile"] == "sim"
    assert "gamma-3.0.dist-info/entry_points.txt" in beside.content()
    assert "gamma 3.0): up to date" in beside.sync().stdout
    (beside.upstream / "gamma" / "__init__.py").unlink()
    assert beside.sync("--check").returncode == 1
    assert beside.sync("--profile", "sim").returncode == 0 and "gamma/__init__.py" in beside.content()
    assert beside.sync("--restore").returncode == 0 and "gamma/__init__.py" in beside.content()
    assert beside.sync("--without", "gamma").returncode == 0
    assert not [name for name in beside.content() if name.startswith("gamma")] and beside.manifest["beside"] == []
    assert "up to date" in beside.sync("--without", "gamma").stdout  # it is as it should be
    assert "gamma" not in beside.sync().stdout


def test_plain_sync_keeps_the_profile(checkout):
    path, commit = checkout.repository(files={"gamma/__init__.py": "", "alpha/worker.py": checkout.worker})
    checkout.pin_git(commit, packages='"gamma", "alpha"')
    assert checkout.sync("--profile", "a3", "--from", f"gamma={path}").returncode == 0
    assert "up to date" in checkout.sync().stdout and checkout.manifest["profile"] == "a3"
    assert checkout.sync("--check").returncode == 0
    assert checkout.sync("--profile", "sim").returncode == 0 and checkout.manifest["profile"] == "sim"
    assert "gamma/__init__.py" not in checkout.content()


def test_what_is_beside_one_profile_may_be_part_of_another(beside):
    path, commit = beside.repository("delta", {"gamma/__init__.py": "", "alpha/worker.py": beside.worker})
    beside.pin_git(commit, packages='"gamma", "alpha"')
    assert beside.sync("--profile", "a3", "--from", f"gamma={path}").returncode == 0
    assert list(beside.manifest["upstreams"]) == ["gamma"]


def test_upstream_that_left_the_pins_is_forgotten(beside):
    beside.pin()
    assert beside.sync().returncode == 0 and "gamma/__init__.py" not in beside.content()


def test_two_upstreams_with_one_file(checkout):
    path, commit = checkout.repository(files={"alpha/__init__.py": ""})
    checkout.pin_git(commit, packages='"alpha"')
    assert "both bring alpha/__init__.py" in checkout.fails("--with", "gamma", "--from", f"gamma={path}")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--with", "delta"], "no upstream 'delta'; beside profile sim it has gamma"),
        (["--without", "delta"], "no upstream 'delta'; beside profile sim it has gamma"),
        (["--without", "alpha"], "it is part of profile sim itself"),
        (["--with", "gamma", "--without", "gamma"], "choose one"),
        (["--from", "delta=/x"], "profile sim has no upstream 'delta'; it has alpha, beta-core (others: add --with"),
        (["--from", "gamma=/x"], "profile sim has no upstream 'gamma'; it has alpha, beta-core (others: add --with"),
        (["--from", "alpha"], "expected NAME=PATH"),
        (["--from", "alpha="], "expected NAME=PATH"),
        (["--profile", "b4"], "has no profile 'b4'; it has sim, a3"),
    ],
)
def test_wrong_names(checkout, arguments, says):
    checkout.pin_git("1" * 40)
    assert says in checkout.fails(*arguments, code=2)
    done = checkout.sync(*arguments, "--json")
    assert done.returncode == 2 and says in json.loads(done.stdout)["error"] and not done.stderr


def test_another_tree_is_synced_checked_and_restored_where_recipe_upstream_says(checkout, tmp_path):
    place = {"RECIPE_UPSTREAM": str(tmp_path / "other" / "tree")}
    tree = Path(place["RECIPE_UPSTREAM"])
    assert checkout.sync().returncode == 0
    before = checkout.content()
    done = checkout.sync(**place)
    assert done.returncode == 0 and f"{tree}/ (alpha 1.0, beta-core 2.0): synced" in done.stdout, done.stderr
    assert (tree / "alpha" / "worker.py").read_text() == before["alpha/worker.py"]
    assert json.loads(checkout.sync("--json", **place).stdout)["upstream"] == str(tree)
    (tree / "alpha" / "__init__.py").unlink()
    (checkout.upstream / "beta" / "__init__.py").write_text("changed\n")
    checked = checkout.sync("--check", **place)
    assert checked.returncode == 1 and "missing: alpha/__init__.py" in checked.stdout
    assert "changed: beta/__init__.py" in checkout.sync("--check").stdout
    assert checkout.sync("--restore", **place).returncode == 0
    assert (tree / "alpha" / "worker.py").read_text() == checkout.worker
    assert checkout.content() == before | {"beta/__init__.py": "changed\n"}


def test_a_directory_of_somebody_else_is_not_replaced(checkout, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    message = checkout.fails(code=2, RECIPE_UPSTREAM=str(tmp_path))
    assert f"RECIPE_UPSTREAM={tmp_path} was not made by sync" in message
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_options_that_do_not_go_together(checkout):
    with pytest.raises(SystemExit) as stopped:
        checkout.sync("--check", "--restore")
    assert stopped.value.code == 2


def test_json(beside):
    done = beside.sync("--json")
    result = json.loads(done.stdout)
    assert done.returncode == 0 and result["changed"] is False and result["upstream"] == str(beside.upstream)
    assert (result["profile"], result["beside"], result["state"]) == ("sim", ["gamma"], "ours")
    assert result["upstreams"] == beside.manifest["upstreams"] and result["source_patches"] == []
    assert result["upstreams"]["gamma"]["packages"] == ["gamma"] and "commit" in result["upstreams"]["gamma"]
    assert result["prelude"] == {"file": "alpha/worker.py", "line": "from ours import prelude"}
    (beside.upstream / "gamma" / "__init__.py").unlink()
    done = beside.sync("--check", "--json")
    result = json.loads(done.stdout)
    assert done.returncode == 1 and result["exact"] is False
    assert result["differences"] == ["missing: gamma/__init__.py"]
    assert json.loads(beside.sync("--restore", "--json").stdout)["state"] == "pristine"
    result = json.loads(beside.sync("--check", "--json").stdout)
    assert result["state"] == "pristine" and result["exact"] is False
    assert json.loads(beside.sync("--json").stdout)["changed"] is True
    assert json.loads(beside.sync("--check", "--json").stdout)["exact"] is True
    beside.pin(alpha="0" * 64)
    for file in (beside.cache / "sources").iterdir():
        file.unlink()
    done = beside.sync("--json")
    assert done.returncode == 1 and "SHA-256" in json.loads(done.stdout)["error"]


def test_help_says_what_to_type(capsys):
    parser = argparse.ArgumentParser()
    cli.register(parser.add_subparsers())
    with pytest.raises(SystemExit):
        parser.parse_args(["sync", "--help"])
    text = capsys.readouterr().out
    for words in ("--with mindspeed", "--from mindspeed=", "--check", "--restore", "exit code: 0", "RECIPE_CACHE_DIR"):
        assert words in text
    assert max(map(len, text.splitlines())) <= 120
