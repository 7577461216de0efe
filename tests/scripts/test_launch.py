# SPDX-License-Identifier: Apache-2.0
"""scripts/launch.sh with real Ray: who may join it, a killed head, and the next run that goes on, by what is in files.

What a shell sees (what nodes say, how they end, what they leave) is in launch*.bats; a stand-in takes the trainer's
place in both, and test_launch_runs.py has the real one.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scripts.nodes import HEAD, Nodes, end_of, marked_in, stand_in_python, until

pytestmark = pytest.mark.slow


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    with Nodes(tmp_path, stand_in_python(tmp_path)) as made:
        yield made


def metrics(run_dir: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def test_a_killed_head_ends_the_run_and_the_next_one_goes_on(nodes: Nodes) -> None:
    file = nodes.run_file(nodes="2", dies_per_node="1", steps="5", save_every="2")
    run_dir = nodes.runs / "sim"
    head, worker = nodes.start(file, STAND_IN_STEP="3"), nodes.start(file, 2)
    until(lambda: (run_dir / "metrics.jsonl").is_file() and metrics(run_dir) == [1, 2, 3], [head, worker])
    assert json.loads((run_dir / "command.json").read_text())["environment"]["RAY_AUTH_MODE"] == "token"
    # Who does not have the token is refused by Ray, on whichever address it listens.
    program = f"import ray; ray.init('{HEAD}:{nodes.base}', _node_ip_address='{HEAD}')"
    guess = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0123456789abcdef"}
    for environment in (guess, {"RAY_AUTH_MODE": "disabled"}):
        intruder = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        assert intruder.returncode != 0 and "AuthenticationError" in intruder.stderr, intruder.stderr
    head.kill()
    code, said = end_of(worker)
    assert code == 1 and "error: the head at 127.0.0.2 is gone: the connection was closed\n" in said, said
    assert end_of(head)[0] == -signal.SIGKILL
    until(lambda: marked_in(nodes.runs) == [], [])

    # The next attempt goes on after the checkpoint of step 2.
    head, worker = nodes.start(file), nodes.start(file, 2)
    code, said = end_of(head)
    assert code == 0 and f"going on in {run_dir} from its checkpoint of step 2\n" in said, said
    assert end_of(worker)[0] == 0
    assert metrics(run_dir) == [1, 2, 3, 4, 5]
    overrides = json.loads((run_dir / "command.json").read_text())["argv"]
    assert f"trainer.resume_from_path={run_dir}/checkpoints/global_step_2" in overrides
    assert (run_dir / "attempts" / "1" / "logs" / "driver.log").is_file()


def test_a_training_that_the_watch_stops_ends_every_node_with_its_exit_code(nodes: Nodes) -> None:
    file = nodes.run_file(nodes="2", dies_per_node="1", steps="5")
    head = nodes.start(file, STAND_IN_STEP="1", STAND_IN_DATA='{"critic/score/mean": NaN}')
    worker = nodes.start(file, 2)
    code, said = end_of(head)
    line = "after step 1: the watch has stopped the run: not_finite: "
    assert code == 3 and f"error: {line}" in said, said
    code, said = end_of(worker)
    assert code == 3 and f"error: {line}" in said, said
    assert json.loads((nodes.runs / "sim" / "result.json").read_text())["status"] == "stopped"
    until(lambda: marked_in(nodes.runs) == [], [])
