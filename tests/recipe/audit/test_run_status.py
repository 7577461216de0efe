# SPDX-License-Identifier: Apache-2.0
"""What was live where, read back from the lines of a run."""

from __future__ import annotations

import json

import pytest

from recipe.__main__ import main
from recipe.audit import run_status
from recipe.overlay.errors import OverlayError


def line(pid: int, patch: str, status: str = "applied", role: str = "WorkerDict rank=0", **more: str) -> str:
    entry = {"time": 1.0, "host": "a", "pid": pid, "role": role, "patch": patch, "target": "x:y", "kind": "wrap",
             "status": status, "reason": "", "fingerprint": "sha256:1", "upstream": "x==1", "version": "1"}  # fmt: skip
    return json.dumps(entry | more) + "\n"


@pytest.fixture
def run(tmp_path):
    def write(*lines: str):
        (tmp_path / "manifest.jsonl").write_text("".join(lines))
        return tmp_path

    return write


def test_equal_workers(run):
    status = run_status.read(run(
        line(1, "p:one", role="TaskRunner"), line(2, "p:one", role="IDLE"), line(2, "p:one"),
        line(2, "p:two", "skipped"),
        line(3, "p:one", role="WorkerDict rank=1"), line(3, "p:two", "skipped", role="WorkerDict rank=1"),
    ))  # fmt: skip
    assert status.groups() == {"TaskRunner": 1, "WorkerDict": 2} and status.problems() == []
    assert status.where("p:one") == {"applied": {"TaskRunner": 1, "WorkerDict": 2}}
    assert status.where("p:two") == {"skipped": {"WorkerDict": 2}}


def test_a_worker_without_a_patch_is_a_problem(run):
    directory = run(line(1, "p:one"), line(1, "p:two"), line(2, "p:two", role="WorkerDict rank=1"))
    assert run_status.read(directory).problems() == ["p:one: WorkerDict processes differ: applied in 1, not there in 1"]
    assert main(["patches", "status", str(directory)]) == 1


@pytest.mark.parametrize("field", ["fingerprint", "version"])
def test_another_upstream_in_one_process_is_a_problem(run, field):
    directory = run(line(1, "p:one"), line(2, "p:one", role="TaskRunner", **{field: "other"}))
    (problem,) = run_status.read(directory).problems()
    assert f"p:one: {field} differs" in problem and "other in 1" in problem


def test_a_failed_patch_is_a_problem(run):
    directory = run(line(7, "p:one", "failed", reason="p:one has changed\n--- pinned\n+++ found"))
    (problem,) = run_status.read(directory).problems()
    assert problem == "p:one failed in WorkerDict rank=0 (host a, pid 7): p:one has changed"


def test_lines_that_were_cut_short_are_counted(run, capsys):
    directory = run(line(1, "p:one"), line(2, "p:one", role="TaskRunner")[:-20])
    assert run_status.read(directory).broken_lines == 1
    assert main(["patches", "status", str(directory)]) == 0
    printed = capsys.readouterr().out
    assert "1 lines of the manifest could not be read" in printed and "the same in all processes of a kind" in printed
    assert main(["patches", "status", str(directory), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["patches"] == {"p:one": {"applied": {"WorkerDict": 1}}} and shown["broken_lines"] == 1
    assert "verl_patches.protocol:concat" in shown["never_imported"]


def test_no_such_run(tmp_path, capsys):
    with pytest.raises(OverlayError, match=r"manifest\.jsonl does not exist"):
        run_status.read(tmp_path)
    assert main(["patches", "status", str(tmp_path), "--json"]) == 1
    assert "does not exist" in json.loads(capsys.readouterr().out)["error"]
