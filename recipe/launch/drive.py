# SPDX-License-Identifier: Apache-2.0
"""One attempt at a run: what it reads is made, everything is derived, and the driver runs to its end."""

from __future__ import annotations

import json
import secrets
import sys
from pathlib import Path

from recipe.files import write_atomically
from recipe.launch.cluster import Cluster
from recipe.launch.health import Health, vocabulary_of
from recipe.launch.leftovers import noted
from recipe.launch.own_ray import OwnRay
from recipe.launch.prepare import prepare
from recipe.launch.progress import Clock
from recipe.launch.ray_start import patiently
from recipe.launch.resume import Start, accepted_keys
from recipe.launch.retention import Retention
from recipe.launch.supervisor import Limits, supervise
from recipe.launch.temporary import run_temp
from recipe.runfile.derive import Derived, derive_run
from recipe.runfile.inherited import full_environment
from recipe.runfile.masking import masked
from recipe.runfile.paths import COMMAND, RunPaths
from recipe.runfile.schema import ON_POLICY, RunConfig
from recipe.watch.history import VOCABULARY


def drive(config: RunConfig, start: Start, cluster: Cluster | None, clock: Clock) -> None:
    """Make the attempt: once more where a Ray of the driver's own was too slow to start.

    Args:
        config: the run.
        start: where it writes, and from which checkpoint it goes on.
        cluster: forms the Ray that the driver joins; None for a driver that starts its own.
        clock: prints what is done.

    Raises:
        LaunchError: something could not be made or derived, or the driver did not come to its end.
    """
    if cluster is not None:
        _drive(config, start, cluster, clock)
    else:
        driver_log = RunPaths(start.run_dir, "", Path()).driver_log
        patiently(lambda: _drive(config, start, OwnRay(), clock), driver_log, clock.say)


def _drive(config: RunConfig, start: Start, ray: Cluster | OwnRay, clock: Clock) -> None:
    run_dir = start.run_dir
    clock.say(f"run {config.run.name}: {config.run.steps} steps, seed {config.run.seed}, files in {run_dir}")
    inputs = prepare(config, clock.say, run_dir / "logs" / "prepare.log")
    with run_temp() as temp:
        paths = RunPaths.of(config, f"{config.run.name}-{secrets.token_hex(6)}", temp)
        derived = derive_run(config, inputs, paths, interface=ray.interface)
        _say_sizes(derived, clock)
        with noted(paths):
            _run_driver(derived, start, ray, clock)


def _say_sizes(derived: Derived, clock: Clock) -> None:
    config, layout = derived.config, derived.layout
    clock.say(
        f"{layout.dies} dies; rollout: DP{layout.rollout_data} TP{layout.rollout_tensor} EP{layout.rollout_expert}; "
        f"actor: DP{layout.actor_data} TP{layout.actor_tensor} PP{layout.actor_pipeline} EP{layout.actor_expert}; "
        f"{config.train.prompts_per_step} prompts x {config.rollout.samples_per_prompt} samples a step, "
        f"{derived.inputs.prompt_tokens} + {config.data.max_response_tokens} tokens"
    )
    if config.train.loss_mode == ON_POLICY:
        clock.say(
            f"loss_mode {ON_POLICY}: no pass for the old log-probabilities, so the rollout's cannot be compared with "
            "them: rollout.calculate_log_probs is off, and the report has no agreement of rollout and actor"
        )


def _run_driver(derived: Derived, start: Start, ray: Cluster | OwnRay, clock: Clock) -> None:
    config, paths = derived.config, derived.paths
    vocabulary = vocabulary_of(derived.inputs.model)
    health = Health(config, vocabulary, paths, clock.say)
    retention = Retention(
        paths.run_dir, paths.checkpoints, config.run.keep_checkpoints, lambda: health.good_step, clock.say
    )
    command = [sys.executable, *derived.arguments, *start.overrides(), *ray.overrides]
    environment = derived.environment | ray.environment
    describe(config, start, command, environment, vocabulary)
    limits = Limits(setup_s=config.run.setup_deadline_s, step_s=config.run.step_deadline_s)
    with ray.formed(config, paths, environment, clock) as alarm, retention:
        supervise(command, full_environment(environment), paths, config.run.steps, limits, clock, alarm, health)


def describe(
    config: RunConfig, start: Start, command: list[str], environment: dict[str, str], vocabulary: int | None
) -> None:
    """Write what this attempt runs into the run's directory: the command, and what it was derived from."""
    content = {
        "argv": command,
        "environment": masked(environment),
        "config": config.described(),
        "accepted": accepted_keys(start.changed),
        VOCABULARY: vocabulary,
    }
    write_atomically(start.run_dir / COMMAND, json.dumps(content, indent=2) + "\n")
