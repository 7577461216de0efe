# SPDX-License-Identifier: Apache-2.0
"""A run that does not begin: on upstream sources that the patches were not written for, or since it has finished."""

from __future__ import annotations

import errno
import json
import shutil

import pytest

from recipe.launch import resume, run, startable
from recipe.launch.errors import AlreadyFinished
from recipe.launch.outcome import Outcome
from recipe.launch.run import launch
from recipe.runfile.config import load
from recipe.runfile.errors import LaunchError
from recipe.runfile.paths import REPO

SIM = REPO / "configs" / "sim.toml"


@pytest.fixture
def upstream(tmp_path, monkeypatch):
    monkeypatch.setenv("RECIPE_UPSTREAM", str(tmp_path / "upstream"))
    monkeypatch.setenv("RECIPE_RUNS", str(tmp_path / "runs"))
    return tmp_path / "upstream"


def test_changed_upstream(upstream, tmp_path):
    module = upstream / "verl" / "models" / "mcore" / "patch_v012.py"
    module.parent.mkdir(parents=True)
    module.write_text("def apply_patch(): return None\n")
    # What else is patched in the same place is as it should be.
    shutil.copy(REPO / "upstream/verl/models/mcore/model_initializer.py", module.parent)
    with pytest.raises(LaunchError, match=r"verl_patches\.models\.mcore\.patch_v012:apply_patch .* has changed"):
        launch(load(SIM), SIM)
    assert not (tmp_path / "runs").exists()


def test_no_upstream(upstream, tmp_path):
    with pytest.raises(LaunchError, match="holds no verl; run `python -m recipe sync`"):
        launch(load(SIM), SIM)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("before", "reports"),
    [(None, [False]), ('{"status": "failed"}', [False]), ("{", [False]), ('{"status": "finished"}', [])],
)
def test_a_run_whose_steps_are_done_gets_what_it_still_lacks(upstream, tmp_path, monkeypatch, before, reports):
    """A launcher may have been killed between the last checkpoint and the end of the run."""

    def nothing_left(*_):
        raise AlreadyFinished("sim has finished 4 of 4 steps")

    made = []
    (upstream / "verl").mkdir(parents=True)
    run_dir = tmp_path / "runs" / "sim"
    run_dir.mkdir(parents=True)
    if before is not None:
        (run_dir / "result.json").write_text(before)
    monkeypatch.setattr(startable, "verify", lambda roots: [])
    monkeypatch.setattr(run, "open_run", nothing_left)
    monkeypatch.setattr(Outcome, "report", lambda outcome, failed: made.append(failed))
    with pytest.raises(AlreadyFinished):
        launch(load(SIM), SIM)
    assert json.loads((run_dir / "result.json").read_text())["status"] == "finished"
    assert made == reports


def test_the_run_of_another_user_is_one_line(upstream, tmp_path, monkeypatch):
    """Tests may run as root, whom no file refuses."""

    def refused(path, *_, **__):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(resume, "open", refused, raising=False)
    with pytest.raises(
        LaunchError, match=r"\.sim\.lock belongs to another user, whose run sim is; give this one another"
    ):
        resume.only_launcher("sim", tmp_path / "runs" / "sim").__enter__()
