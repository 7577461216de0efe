# SPDX-License-Identifier: Apache-2.0
"""verl's trainer, its TaskRunner on the head: `python -m recipe.launch.driver --config-name=... KEY=VALUE ...`.

The TaskRunner writes the metrics, the validation samples and the checkpoints' index. Ray is free to put an actor that
asks for a CPU on any node; where the directory of the run is not on shared storage, these files would be on that one.

Tokens of trackers go to the TaskRunner, and to no other process that Ray starts.

What ends it is recorded for the launcher (`recipe.launch.failure`); what it cannot print (a full disk under its log)
does not end it.
"""

from __future__ import annotations

import os
from typing import Any

import hydra
import ray
from verl.trainer.main_ppo import TaskRunner, run_ppo

from recipe.launch.failure import record_failure
from recipe.runfile.trackers import take_tokens
from recipe.terminal import never_fail

# Every Ray gives its head node 1.0 of this resource.
HEAD_RESOURCE = "node:__internal_head__"


@hydra.main(config_path="pkg://verl.trainer.config", config_name="ppo_trainer", version_base=None)
def main(config: Any) -> None:
    """verl's own entry with its own configuration; hydra's decorator passes it."""
    tokens = take_tokens(os.environ)

    class TrackingTaskRunner(TaskRunner):
        """verl's, which makes the trackers."""

        def run(self, config: Any) -> None:
            os.environ.update(tokens)
            super().run(config)

    run_ppo(config, task_runner_class=ray.remote(num_cpus=1, resources={HEAD_RESOURCE: 0.001})(TrackingTaskRunner))


if __name__ == "__main__":
    never_fail()
    try:
        main()
    except Exception as error:
        record_failure(error)
        raise
