# SPDX-License-Identifier: Apache-2.0
"""verl's TaskRunner, which writes the run's files, is on the head, even where Ray would rather have it elsewhere."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from recipe.runfile.overrides import DRIVER

# The head is busy, and the other node is not: Ray prefers that one for whatever does not say where it belongs.
TWO_NODES = """
import sys
import ray
from ray.cluster_utils import Cluster
from verl.trainer import main_ppo

class TaskRunner:
    def run(self, config):
        print("TaskRunner on", ray.get_runtime_context().get_node_id(), flush=True)
        with open(config.trainer.project_name, "w") as file:
            file.write(ray.get_runtime_context().get_node_id())

main_ppo.TaskRunner = TaskRunner
small = {"object_store_memory": 80_000_000, "include_dashboard": False}
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 8, **small})
cluster.add_node(num_cpus=8, object_store_memory=80_000_000)
ray.init(address=cluster.address, log_to_driver=False)

@ray.remote(num_cpus=7, resources={"node:__internal_head__": 0.01})
class Busy:
    def ready(self): pass

busy = Busy.remote()
ray.get(busy.ready.remote())
from recipe.launch.driver import main
main()
out = sys.argv[-1].partition("=")[2]
print("head", ray.get_runtime_context().get_node_id() == open(out).read())
"""


@pytest.mark.slow
def test_the_task_runner_is_on_the_head(tmp_path: Path) -> None:
    overrides = [f"hydra.run.dir={tmp_path}", "hydra.output_subdir=null", f"trainer.project_name={tmp_path}/where"]
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(TWO_NODES), *DRIVER[2:], *overrides],
        cwd=tmp_path, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1:] == ["head True"], done.stdout + done.stderr
