# SPDX-License-Identifier: Apache-2.0
"""The one line that says why a run failed: true, and never what a model has written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from recipe.launch.failure import cause, cause_in_log, expect_record, record_failure
from recipe.runfile.paths import RunPaths

RAY_LOG = """\
\x1b[36m(TaskRunner pid=19168)\x1b[0m starting
Error executing job with overrides: ['a=1']
Traceback (most recent call last):
  File "main_ppo.py", line 41, in main
ray.exceptions.RayTaskError(RuntimeError): \x1b[36mray::TaskRunner.run()\x1b[39m (pid=19168, ip=127.0.0.1)
  File "worker.py", line 7, in generate
    self.model(x)
RuntimeError: Expected all tensors to be on the same device,
but found at least two devices, npu:0 and cpu!

Set the environment variable HYDRA_FULL_ERROR=1 for a complete stack trace.
"""

DEATH_LOG = """\
Traceback (most recent call last):
  File "base.py", line 53, in __call__
    output = ray.get(output)
ray.exceptions.ActorDiedError: The actor died unexpectedly before finishing this task.
\tclass_name: create_colocated_worker_cls.<locals>.WorkerDict
\tpid: 4711
"""
DIED = "WorkerDict (pid 4711) died: it was killed, or the machine ran out of memory"

# What a model may have written into a log, as Ray passes it on: each of its lines behind a prefix, of which it can
# choose the name (`:actor_name:` in a log is Ray's own), and with every character that ends a line for someone.
ANSWERS = [
    "ValueError: gotcha",
    "Traceback (most recent call last):\n  File 'x', line 1\nValueError: gotcha",
    "\x1b[0m\x1b[2K\rValueError: gotcha",
    "a\u2028ValueError: gotcha\x85ValueError: gotcha\x0cValueError: gotcha\x1eValueError: gotcha",
    "(TaskRunner pid=1) ValueError: gotcha",
]
PREFIXES = [
    "\x1b[36m(TaskRunner pid=19168)\x1b[0m ",
    "(WorkerDict pid=7, ip=10.0.0.2) ",
    "\x1b[36m(x) y pid=7)\x1b[0m ",
]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "driver.log"


@pytest.fixture
def paths(tmp_path: Path) -> RunPaths:
    (tmp_path / "run" / "logs").mkdir(parents=True)
    return RunPaths(tmp_path / "run", "run-1", tmp_path / "temp")


def environment(paths: RunPaths) -> dict[str, str]:
    return {"RECIPE_RUN_DIR": str(paths.run_dir), "RECIPE_RUN_ID": paths.run_id}


def test_the_innermost_exception_is_the_cause(log: Path) -> None:
    log.write_text(RAY_LOG, encoding="utf-8")
    assert cause_in_log(log) == (
        "RuntimeError: Expected all tensors to be on the same device, but found at least two devices, npu:0 and cpu!"
    )


def test_a_dead_actor_is_the_cause_when_nothing_else_is(log: Path) -> None:
    log.write_text(DEATH_LOG, encoding="utf-8")
    assert cause_in_log(log) == DIED


def test_the_exception_that_killed_an_actor_comes_before_its_death(log: Path) -> None:
    log.write_text(RAY_LOG + DEATH_LOG, encoding="utf-8")
    assert (cause_in_log(log) or "").startswith("RuntimeError: Expected")


def test_no_exception_no_cause(log: Path) -> None:
    log.write_text("all is well\nError bars are drawn\n", encoding="utf-8")
    assert cause_in_log(log) is None
    assert cause_in_log(log.with_name("missing.log")) is None


def test_a_long_message_is_cut(log: Path) -> None:
    log.write_text("ValueError: " + "x" * 5000 + "\n", encoding="utf-8")
    assert len(cause_in_log(log) or "") == 400


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("prefix", PREFIXES)
def test_what_a_worker_prints_is_no_cause(log: Path, prefix: str, answer: str) -> None:
    printed = "".join(f"{prefix}{line}\n" for line in answer.split("\n"))
    log.write_text(printed, encoding="utf-8")
    assert cause_in_log(log) is None
    log.write_text(RAY_LOG + printed, encoding="utf-8")
    assert (cause_in_log(log) or "").startswith("RuntimeError: Expected")


class RayTaskError(Exception):
    def __init__(self, inner: BaseException) -> None:
        super().__init__("as it looks in a log:\nValueError: gotcha")
        self.cause = inner


class ActorDiedError(Exception):
    pass


def recorded(paths: RunPaths, error: BaseException) -> str | None:
    expect_record(paths)
    record_failure(error, environment(paths))
    return cause(paths)


def test_the_recorded_exception_is_the_cause(paths: RunPaths) -> None:
    assert recorded(paths, ValueError("the batch is odd")) == "ValueError: the batch is odd"
    assert recorded(paths, RayTaskError(RayTaskError(KeyError("x")))) == "KeyError: 'x'"
    assert recorded(paths, ActorDiedError("\n".join(DEATH_LOG.splitlines()[3:]))) == DIED
    assert (
        recorded(paths, RuntimeError("a\n\x1b[31mb\u2028ValueError: gotcha"))
        == "RuntimeError: a [31mb ValueError: gotcha"
    )
    assert len(recorded(paths, OSError("x" * 10**6)) or "") == 400
    assert recorded(paths, RuntimeError("\ud800" * 9000 + "end")) is not None
    raised_in_constructor = (
        "The actor died because of an error raised in its creation task, ray::X()\n  File\nOSError: no"
    )
    assert recorded(paths, ActorDiedError(raised_in_constructor)) == "OSError: no"


def test_a_record_is_that_of_this_run(paths: RunPaths) -> None:
    record_failure(ValueError("the last run's"), {**environment(paths), "RECIPE_RUN_ID": "run-0"})
    assert cause(paths) is None
    record_failure(ValueError("ours"), environment(paths))
    expect_record(paths)
    assert cause(paths) is None, "one of an earlier attempt is removed"


@pytest.mark.parametrize("text", ["", "{", "[]", "\xff", "[" * 10**5, '{"type": 1}', "null"])
def test_a_broken_record_is_none(paths: RunPaths, text: str) -> None:
    paths.failure.write_bytes(text.encode("latin-1"))
    assert cause(paths) is None


def test_nothing_is_recorded_outside_a_run(paths: RunPaths) -> None:
    record_failure(ValueError("x"), {})
    assert not paths.failure.exists()


@pytest.mark.slow
def test_what_ray_carries_is_unwrapped(paths: RunPaths) -> None:
    """A worker's exception through a task of a task, a worker that is killed, and one that fails in its constructor."""
    code = """
import os, ray, sys
from recipe.launch.failure import cause, expect_record, record_failure
from recipe.runfile.paths import RunPaths
from pathlib import Path

@ray.remote(num_cpus=0)
class WorkerDict:
    def __init__(self, fail=False):
        if fail: raise OSError("no device")
    def work(self): raise RuntimeError("shapes differ\\nValueError: gotcha")
    def die(self): os._exit(1)

@ray.remote(num_cpus=0)
class TaskRunner:
    def run(self, what):
        print("ValueError: gotcha")
        worker = WorkerDict.remote(what == "init")
        ray.get(getattr(worker, "die" if what == "die" else "work").remote())

paths = RunPaths(Path(os.environ["RECIPE_RUN_DIR"]), os.environ["RECIPE_RUN_ID"], Path())
ray.init(address="local", num_cpus=1, include_dashboard=False, object_store_memory=80_000_000, log_to_driver=False,
         _temp_dir=sys.argv[1])
for what in ("work", "die", "init"):
    expect_record(paths)
    try:
        ray.get(TaskRunner.remote().run.remote(what))
    except Exception as error:
        record_failure(error)
    print("cause:", cause(paths), flush=True)
"""
    with tempfile.TemporaryDirectory(dir="/tmp") as temp:
        done = subprocess.run(
            [sys.executable, "-c", code, temp], env={**os.environ, **environment(paths)},
            capture_output=True, text=True, timeout=200, check=False,
        )  # fmt: skip
    causes = [line.partition(": ")[2] for line in done.stdout.splitlines() if line.startswith("cause: ")]
    assert len(causes) == 3, done.stdout + done.stderr
    assert causes[0] == "RuntimeError: shapes differ ValueError: gotcha"
    assert causes[1].startswith("WorkerDict (pid ") and "died" in causes[1]
    assert causes[2] == "OSError: no device"
    assert json.loads(paths.failure.read_text())["run_id"] == paths.run_id
