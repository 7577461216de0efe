# SPDX-License-Identifier: Apache-2.0
"""One run from its file to its report."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from recipe.clock import Clock
from recipe.command import caught
from recipe.files import write_atomically
from recipe.launch.cluster import RayCluster
from recipe.launch.drive import drive
from recipe.launch.errors import AlreadyFinished
from recipe.launch.first_look import require_room
from recipe.launch.leftovers import end_former
from recipe.launch.outcome import Outcome
from recipe.launch.resume import ResumeRequest, begin_attempt, only_launcher, open_run
from recipe.launch.startable import require_startable
from recipe.runfile.masking import masked_run_file
from recipe.runfile.paths import RunPaths
from recipe.runfile.schema import RunConfig
from recipe.runfile.trackers import secrets_of


def launch(
    config: RunConfig, source: Path, cluster: RayCluster | None = None, request: ResumeRequest | None = None
) -> Path:
    """Run it; returns the run directory, with the report in it.

    Args:
        config: the run.
        source: its file.
        cluster: forms the Ray that the driver joins; None for a driver that starts its own.
        request: what the command line asks of a run that has been there before.

    Raises:
        LaunchError: the run did not finish. Whatever it left is in the run directory all the same.
        AlreadyFinished: it had finished before.
    """
    clock = Clock(sys.stdout)
    require_startable(config, source, alone=cluster is None)
    paths = RunPaths.of(config)
    run_dir = paths.run_dir
    require_room(run_dir.parent)
    with only_launcher(config.run.name, run_dir):
        end_former(run_dir, clock.say)
        outcome = Outcome(config.run, run_dir, clock)
        try:
            start = open_run(config, paths, request or ResumeRequest(), clock)
        except AlreadyFinished:
            outcome.complete()
            raise
        begin_attempt(start, paths.checkpoints)
        clock.copy_to(run_dir / "logs" / "launcher.log")

        def attempt() -> None:
            outcome.reserve()
            write_atomically(run_dir / "run.toml", masked_run_file(source.read_text(encoding="utf-8-sig")))
            drive(config, paths, start, cluster, clock)

        error = caught(attempt, run_dir / "logs", secrets_of(config, os.environ))
        outcome.close(error, start.step)
    if error is not None:
        raise error
    return run_dir
