# SPDX-License-Identifier: Apache-2.0
"""One run from its file to its report."""

from __future__ import annotations

import sys
from pathlib import Path

from recipe.files import write_atomically
from recipe.launch.cluster import Cluster
from recipe.launch.command import in_one_line
from recipe.launch.drive import drive
from recipe.launch.errors import AlreadyFinished
from recipe.launch.first_look import first_look, require_one_machine, require_plain_interpreter, require_room
from recipe.launch.leftovers import end_former
from recipe.launch.outcome import Outcome
from recipe.launch.progress import Clock
from recipe.launch.resume import Asked, Start, begin_attempt, only_launcher, open_run
from recipe.launch.sources import require_sources
from recipe.runfile.errors import LaunchError
from recipe.runfile.masking import masked_run_file, scrub
from recipe.runfile.paths import RunPaths, upstream_dir
from recipe.runfile.schema import RunConfig


def launch(config: RunConfig, source: Path, cluster: Cluster | None = None, asked: Asked | None = None) -> Path:
    """Run it; returns the run directory, with the report in it.

    Args:
        config: the run.
        source: its file.
        cluster: forms the Ray that the driver joins; None for a driver that starts its own.
        asked: what the command line asks of a run that has been there before.

    Raises:
        LaunchError: the run did not finish. Whatever it left is in the run directory all the same.
        AlreadyFinished: it had finished before.
    """
    clock, paths = Clock(sys.stdout), RunPaths.of(config, "", Path())
    _require_startable(config, source, alone=cluster is None)
    require_room(paths.run_dir.parent)
    with only_launcher(config.run.name, paths.run_dir):
        end_former(paths.run_dir, clock.say)
        outcome = Outcome(config, clock)
        start = _begin(config, paths, asked or Asked(), outcome, clock)
        clock.copy_to(paths.run_dir / "logs" / "launcher.log")
        error = _attempt(config, source, start, cluster, outcome, clock)
        outcome.close(error, start.step)
    if error is not None:
        raise error
    return paths.run_dir


def _require_startable(config: RunConfig, source: Path, alone: bool) -> None:
    """Refuses, before anything is made, a run that this machine could not bring to its first step."""
    first_look(config)
    if alone:
        require_one_machine(config, source)
    require_sources(upstream_dir())
    require_plain_interpreter(sys.executable)


def _begin(config: RunConfig, paths: RunPaths, asked: Asked, outcome: Outcome, clock: Clock) -> Start:
    """The directory of the run, made ready for this attempt; one that has finished gets what it still lacks."""
    try:
        start = open_run(config, paths.run_dir, paths.checkpoints, asked, clock)
    except AlreadyFinished:
        outcome.complete()
        raise
    begin_attempt(start, paths.checkpoints)
    return start


def _attempt(
    config: RunConfig, source: Path, start: Start, cluster: Cluster | None, outcome: Outcome, clock: Clock
) -> LaunchError | None:
    """Drive the run to its end; returns why it did not come to that, None when it did."""
    try:
        outcome.reserve()
        write_atomically(start.run_dir / "run.toml", masked_run_file(source.read_text(encoding="utf-8-sig")))
        drive(config, start, cluster, clock)
    except ModuleNotFoundError:
        raise  # a package to install
    except Exception as problem:
        error = in_one_line(problem, start.run_dir / "logs")
        scrub(error, config.environment)
        return error
    return None
