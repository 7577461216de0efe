# SPDX-License-Identifier: Apache-2.0
"""Runs the driver of a run to its end: records its command, watches its training, and prunes its checkpoints."""

from __future__ import annotations

import json
import sys

from recipe.clock import Clock
from recipe.files import write_atomically
from recipe.launch.cluster import RayCluster
from recipe.launch.health import Health, vocabulary_of
from recipe.launch.own_ray import OwnRay
from recipe.launch.resume import Start, accepted_keys
from recipe.launch.retention import Retention
from recipe.launch.supervisor import Limits, supervise
from recipe.runfile.derive import Derived
from recipe.runfile.inherited import full_environment
from recipe.runfile.masking import masked
from recipe.runfile.paths import COMMAND
from recipe.watch.history import VOCABULARY


def train(derived: Derived, start: Start, ray: RayCluster | OwnRay, clock: Clock) -> None:
    """Run the driver.

    Args:
        derived: what it is told, and where it keeps things.
        start: from which checkpoint it goes on.
        ray: the Ray that it joins, or starts.
        clock: prints the progress.

    Raises:
        LaunchError: it did not come to its end (`recipe.launch.supervisor.supervise`).
    """
    run, paths = derived.config.run, derived.paths
    command = [sys.executable, *derived.arguments, *start.overrides(), *ray.overrides]
    environment = derived.environment | ray.environment
    vocabulary = vocabulary_of(derived.inputs.model)
    health = Health(derived.config, vocabulary, paths, clock.say)
    retention = Retention(paths.run_dir, paths.checkpoints, run.keep_checkpoints, lambda: health.good_step, clock.say)
    describe(derived, start, command, environment, vocabulary)
    limits = Limits(setup_s=run.setup_deadline_s, step_s=run.step_deadline_s)
    with ray.formed(derived.config, paths, environment, clock) as alarm, retention:
        supervise(command, full_environment(environment), paths, run.steps, limits, clock, alarm, health)


def describe(
    derived: Derived, start: Start, command: list[str], environment: dict[str, str], vocabulary: int | None
) -> None:
    """Write into the run's directory what this attempt runs, and from which run file; secret values are hidden."""
    content = {
        "argv": command,
        "environment": masked(environment),
        "config": derived.config.described(),
        "accepted": accepted_keys(start.changed),
        VOCABULARY: vocabulary,
    }
    write_atomically(derived.paths.run_dir / COMMAND, json.dumps(content, indent=2) + "\n")
