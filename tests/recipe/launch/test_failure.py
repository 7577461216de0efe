# SPDX-License-Identifier: Apache-2.0
"""The one line that says why a run failed."""

from __future__ import annotations

from pathlib import Path

from recipe.launch.failure import cause

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


def test_the_innermost_exception_is_the_cause(tmp_path: Path) -> None:
    log = tmp_path / "driver.log"
    log.write_text(RAY_LOG, encoding="utf-8")
    assert cause(log) == (
        "RuntimeError: Expected all tensors to be on the same device, but found at least two devices, npu:0 and cpu!"
    )


def test_a_dead_actor_is_the_cause_when_nothing_else_is(tmp_path: Path) -> None:
    log = tmp_path / "driver.log"
    log.write_text(DEATH_LOG, encoding="utf-8")
    assert cause(log) == "WorkerDict (pid 4711) died: it was killed, or the machine ran out of memory"


def test_the_exception_that_killed_an_actor_comes_before_its_death(tmp_path: Path) -> None:
    log = tmp_path / "driver.log"
    log.write_text(RAY_LOG + DEATH_LOG, encoding="utf-8")
    assert (cause(log) or "").startswith("RuntimeError: Expected")


def test_no_exception_no_cause(tmp_path: Path) -> None:
    log = tmp_path / "driver.log"
    log.write_text("all is well\nError bars are drawn\n", encoding="utf-8")
    assert cause(log) is None
    assert cause(tmp_path / "missing.log") is None


def test_a_long_message_is_cut(tmp_path: Path) -> None:
    log = tmp_path / "driver.log"
    log.write_text("ValueError: " + "x" * 5000 + "\n", encoding="utf-8")
    assert len(cause(log) or "") == 400
