# SPDX-License-Identifier: Apache-2.0
"""scripts/launch.sh with the real trainer: a run on two simulated nodes, killed and gone on from its checkpoint.

All that needs no real trainer is in test_launch.py and, as a shell sees it, in launch*.bats.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from recipe.recorder import read_events
from tests.scripts.nodes import Nodes, end_of, marked_in, until

pytestmark = pytest.mark.slow


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    with Nodes(tmp_path) as made:
        yield made


def test_a_run_on_two_nodes_is_killed_and_goes_on(nodes: Nodes) -> None:
    changes = {"warm_start_steps": "40", "validation_samples": "1", "save_every": "2", "steps": "4"}
    file = nodes.run_file(nodes="2", dies_per_node="1", **changes)
    run_dir = nodes.runs / "sim"
    latest = run_dir / "checkpoints" / "latest_checkpointed_iteration.txt"
    head, worker = nodes.start(file, preflight=True), nodes.start(file, 2, preflight=True)
    until(lambda: latest.is_file() and latest.read_text() == "2", [head, worker], limit_s=600)
    head.kill()
    code, said = end_of(worker)
    assert code == 1 and "error: the head at 127.0.0.2 is gone: the connection was closed\n" in said, said
    assert end_of(head)[0] == -signal.SIGKILL
    until(lambda: marked_in(nodes.runs) == [], [])

    head, worker = nodes.start(file), nodes.start(file, 2)
    code, said = end_of(head, 600)
    assert code == 0 and f"going on in {run_dir} from its checkpoint of step 2\n" in said, said
    code, said = end_of(worker)
    assert code == 0 and "the run has finished\n" in said, said
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 1, 2, 3, 4]
    third = lines[3]["data"]
    # The reference is the model the run began with; an actor that was not restored would be the same.
    assert third["actor/kl_loss"] > 0.01
    assert third["training/rollout_actor_probs_pearson_corr"] >= 0.99
    summary = json.loads((run_dir / "summary.json").read_text())
    assert (summary["status"], summary["steps"]) == ("finished", 4)
    # Both attempts had a worker on each node, and all workers the same patches.
    verdicts = [event for event in read_events(run_dir) if event["kind"] == "overlay"]
    assert [(one["workers"], one["differences"]) for one in verdicts] == [(2, []), (2, [])]
    memory = {event["pid"] for event in read_events(run_dir / "nodes" / "127.0.0.3") if event["kind"] == "memory"}
    assert len(memory) == 2
    assert not list(run_dir.rglob("npu_sim.slots"))
