# SPDX-License-Identifier: Apache-2.0
"""One attempt at a run: make its inputs, derive everything else, and run the driver to its end."""

from __future__ import annotations

import secrets

from recipe.clock import Clock
from recipe.launch.cluster import RayCluster
from recipe.launch.leftovers import noted
from recipe.launch.own_ray import OwnRay
from recipe.launch.prepare import prepare
from recipe.launch.ray_start import patiently
from recipe.launch.resume import Start
from recipe.launch.temporary import run_temp
from recipe.launch.training import train
from recipe.runfile.derive import derive_run
from recipe.runfile.paths import RunPaths
from recipe.runfile.schema import RunConfig


def drive(config: RunConfig, paths: RunPaths, start: Start, cluster: RayCluster | None, clock: Clock) -> None:
    """Make the attempt, and repeat it where the driver's own Ray was too slow to start.

    Args:
        config: the run.
        paths: where it keeps things.
        start: from which checkpoint it goes on.
        cluster: forms the Ray that the driver joins; None for a driver that starts its own.
        clock: prints what is done.

    Raises:
        LaunchError: something could not be made or derived, or the driver did not come to its end.
    """
    if cluster is not None:
        _drive(config, paths, start, cluster, clock)
    else:
        patiently(lambda: _drive(config, paths, start, OwnRay(), clock), paths.driver_log, clock.say)


def _drive(config: RunConfig, paths: RunPaths, start: Start, ray: RayCluster | OwnRay, clock: Clock) -> None:
    run = config.run
    clock.say(f"run {run.name}: {run.steps} steps, seed {run.seed}, files in {paths.run_dir}")
    inputs = prepare(config, clock.say, paths.run_dir / "logs" / "prepare.log")
    with run_temp() as temp:
        paths = paths.launched(f"{run.name}-{secrets.token_hex(6)}", temp)
        derived = derive_run(config, inputs, paths, interface=ray.interface)
        clock.say(
            f"{derived.layout.in_words}; {config.train.prompts_per_step} prompts x {config.rollout.samples_per_prompt} "
            f"samples a step, {inputs.prompt_tokens} + {config.data.max_response_tokens} tokens"
        )
        if derived.mindspeed and config.simulated:
            clock.say("MindSpeed is among the upstreams and adapts Megatron-core")
        with noted(paths):
            train(derived, start, ray, clock)
