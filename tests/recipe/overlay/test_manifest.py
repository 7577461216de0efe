# SPDX-License-Identifier: Apache-2.0
"""What is live where: one line per process and patch."""

from __future__ import annotations

import json
import os

import pytest

from recipe.overlay import manifest


def lines(run):
    return [json.loads(line) for line in (run / "manifest.jsonl").read_text().splitlines()]


def test_one_line_per_process_and_patch(world, tmp_path):
    run = tmp_path / "runs" / "r"
    world.mirror(
        "mod.py",
        "never = Condition(lambda: False, otherwise='not here')",
        world.decl("fake.mod:f", "def f(original, x): return 0"),
        world.decl("fake.mod:A.m", "def m(original, self, x): return 0", when="never"),
    )
    code = """
        import os, fake_patches.prelude, fake.mod
        from recipe.overlay import apply, revert
        revert(); apply(); revert(); apply()
        child = os.fork()
        if child == 0:
            revert(); apply()
            os._exit(0)
        os.waitpid(child, 0)
        """
    world.ok(code, env={"RECIPE_RUN_DIR": str(run), "RANK": "3"})
    written = lines(run)
    assert len({line["pid"] for line in written}) == 2
    first = [line for line in written if line["pid"] == written[0]["pid"]]
    assert [(line["patch"], line["status"], line["reason"]) for line in first] == [
        ("fake_patches.mod:f", "applied", ""),
        ("fake_patches.mod:m", "skipped", "not here"),
    ]
    keys = {"time", "host", "pid", "role", "patch", "target", "status", "reason", "fingerprint", "kind", "upstream"}
    keys.add("version")
    assert all(line.keys() == keys for line in written)
    assert [written[0][key] for key in ("role", "upstream", "kind")] == ["worker rank=3", "fake==1", "wrap"]
    assert len(written) == len({(line["pid"], line["patch"]) for line in written})


def test_failure_is_written_too(world, tmp_path):
    world.mirror("mod.py", world.decl("fake.mod:f", "def f(original): pass", fingerprint="sha256:" + "0" * 64))
    assert world.run("import fake_patches.prelude, fake.mod", env={"RECIPE_RUN_DIR": str(tmp_path)}).returncode == 1
    (line,) = lines(tmp_path)
    assert line["status"] == "failed" and "has changed" in line["reason"]


def test_nothing_is_written_without_a_run_directory(world, tmp_path):
    world.mirror("mod.py", world.decl("fake.mod:f", "def f(original, x): return 0"))
    world.ok("import fake_patches.prelude, fake.mod")
    assert not list(tmp_path.rglob("manifest.jsonl"))


def test_many_processes_write_whole_lines(world, tmp_path):
    world.mirror("mod.py", world.decl("fake.mod:f", "def f(original, x): return 0"))
    code = """
        import os, fake_patches.prelude
        children = []
        for _ in range(16):
            child = os.fork()
            if child == 0:
                import fake.mod
                os._exit(0)
            children.append(child)
        for child in children:
            os.waitpid(child, 0)
        """
    world.ok(code, env={"RECIPE_RUN_DIR": str(tmp_path), **{k: v for k, v in os.environ.items() if k == "PATH"}})
    assert len({line["pid"] for line in lines(tmp_path)}) == 16


@pytest.mark.parametrize(
    ("title", "rank", "expected"),
    [
        ("ray::TaskRunner.run", None, "TaskRunner"),
        ("ray::WorkerDict.actor_rollout_generate", "1", "WorkerDict rank=1"),
        ("ray::IDLE", None, "TaskRunner or helper"),
        ("ray::IDLE", "0", "worker rank=0"),
    ],
)
def test_role_of_a_ray_process(monkeypatch, title, rank, expected):
    monkeypatch.setattr(manifest, "_title", lambda: title)
    monkeypatch.delenv("RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("RANK", rank)
    assert manifest.role() == expected


def test_what_a_worker_forks_has_a_role_of_its_own(monkeypatch):
    """A checkpoint writer that imports a patched module is no second worker of that rank."""
    monkeypatch.setattr(manifest, "_title", lambda: "ray::WorkerDict.actor_rollout_save_checkpoint")
    monkeypatch.setenv("RANK", "1")
    assert manifest.role() == "WorkerDict rank=1"
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, manifest.role().encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reading, 100) == b"fork of WorkerDict"
