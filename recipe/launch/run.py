# SPDX-License-Identifier: Apache-2.0
"""One run from its file to its report."""

from __future__ import annotations

import json
import secrets
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipe.audit.fit import verify
from recipe.files import release, reserve, write_atomically
from recipe.launch.command import in_one_line
from recipe.launch.errors import STOPPED, AlreadyFinished, TrainingStopped
from recipe.launch.first_look import (
    first_look,
    require_one_machine,
    require_plain_interpreter,
    require_room,
)
from recipe.launch.health import Health, vocabulary_of
from recipe.launch.leftovers import end_former, noted
from recipe.launch.prepare import prepare
from recipe.launch.progress import Clock, minutes
from recipe.launch.ray_node import own_authentication
from recipe.launch.ray_start import patiently
from recipe.launch.resume import Asked, Start, accepted_keys, begin_attempt, only_launcher, open_run
from recipe.launch.retention import Retention
from recipe.launch.signals import StopSignals
from recipe.launch.supervisor import Limits, supervise
from recipe.launch.temporary import run_temp
from recipe.recorder import append_line, read_object
from recipe.runfile.environment import derived_environment
from recipe.runfile.errors import LaunchError
from recipe.runfile.inherited import full_environment
from recipe.runfile.layout import Layout, derive
from recipe.runfile.masking import masked, masked_run_file, scrub
from recipe.runfile.overrides import DRIVER, Inputs, hydra_overrides
from recipe.runfile.paths import COMMAND, RESULT, RunPaths, run_directory, upstream_dir
from recipe.runfile.schema import ON_POLICY, RunConfig
from recipe.watch.history import VOCABULARY

if TYPE_CHECKING:
    from recipe.launch.cluster import Cluster

_RESULT_BYTES = 2**14


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
    clock = Clock(sys.stdout)
    first_look(config)
    if cluster is None:
        require_one_machine(config, source)
    if not (upstream_dir() / "verl").is_dir():
        raise LaunchError(f"{upstream_dir()} holds no verl; run `python -m recipe sync` (or scripts/setup.sh) first")
    drifted = [one.line for one in verify([upstream_dir()]) if not one.fits]
    if drifted:
        raise LaunchError("patches do not fit the upstream sources, see python -m recipe patches verify: " + drifted[0])
    require_plain_interpreter(sys.executable)
    run_dir = run_directory(config)
    require_room(run_dir.parent)
    with only_launcher(config.run.name, run_dir):
        end_former(run_dir, clock.say)
        checkpoints = RunPaths(run_dir, "", Path(), _checkpoint_dir(config)).checkpoints
        try:
            start = open_run(config, run_dir, checkpoints, asked or Asked(), clock)
        except AlreadyFinished:
            _complete(config, run_dir, clock)
            raise
        begin_attempt(start, checkpoints)
        clock.copy_to(run_dir / "logs" / "launcher.log")
        error: LaunchError | None = None
        try:
            reserve(run_dir / RESULT, _RESULT_BYTES)
            write_atomically(run_dir / "run.toml", masked_run_file(source.read_text(encoding="utf-8-sig")))
            if cluster is None:
                driver_log = RunPaths(run_dir, "", Path()).driver_log
                patiently(lambda: _run(config, start, None, clock), driver_log, clock.say)
            else:
                _run(config, start, cluster, clock)
        except ModuleNotFoundError:
            raise  # a package to install
        except Exception as problem:
            error = in_one_line(problem, run_dir / "logs")
            scrub(error, config.environment)
        with StopSignals():
            _write_result(config, run_dir, clock, error, start.step)
        if error is not None:
            clock.note(f"error: {error}")
        _report(run_dir, clock, failed=error is not None)
    if error is not None:
        raise error
    return run_dir


def _write_result(config: RunConfig, run_dir: Path, clock: Clock, error: LaunchError | None, step: int) -> None:
    """Write how the run ended, for whoever reads it later.

    Its space was taken at the start. Should it not be written all the same, exit code and last line still tell it.
    """
    result = {
        **_outcome(error),
        "wall_s": round(time.monotonic() - clock.start, 1),
        "seed": config.run.seed,
        "steps_wanted": config.run.steps,
        "resumed_from_step": step or None,
    }
    try:
        write_atomically(run_dir / RESULT, json.dumps(result, indent=2) + "\n")
    except OSError as problem:
        release(run_dir / RESULT)
        clock.say(f"warning: {run_dir / RESULT} could not be written: {problem.strerror}")


def _complete(config: RunConfig, run_dir: Path, clock: Clock) -> None:
    """Write what an attempt that ended after the last checkpoint did not come to: the outcome and the report."""
    result = run_dir / RESULT
    outcome = read_object(result.read_text(encoding="utf-8", errors="replace")) if result.is_file() else None
    if (outcome or {}).get("status") != "finished":
        _write_result(config, run_dir, clock, None, 0)
        _report(run_dir, clock, failed=False)


def _outcome(error: LaunchError | None) -> dict[str, str | None]:
    """How the run ended, for its result file."""
    if isinstance(error, TrainingStopped):
        checkpoint = None if error.checkpoint is None else str(error.checkpoint)
        return {"status": STOPPED, "error": str(error), "rule": error.rule, "last_good_checkpoint": checkpoint}
    return {"status": "finished" if error is None else "failed", "error": None if error is None else str(error)}


def _run(config: RunConfig, start: Start, cluster: Cluster | None, clock: Clock) -> None:
    run_dir = start.run_dir
    clock.say(f"run {config.run.name}: {config.run.steps} steps, seed {config.run.seed}, files in {run_dir}")
    inputs = prepare(config, clock.say, run_dir / "logs" / "prepare.log")
    layout = derive(config, inputs.prompt_tokens)
    clock.say(
        f"{layout.dies} dies; rollout: DP{layout.rollout_data} TP{layout.rollout_tensor} EP{layout.rollout_expert}; "
        f"actor: DP{layout.actor_data} TP{layout.actor_tensor} PP{layout.actor_pipeline} EP{layout.actor_expert}; "
        f"{config.train.prompts_per_step} prompts x {config.rollout.samples_per_prompt} samples a step, "
        f"{inputs.prompt_tokens} + {config.data.max_response_tokens} tokens"
    )
    if config.train.loss_mode == ON_POLICY:
        clock.say(
            f"loss_mode {ON_POLICY}: no pass for the old log-probabilities, so the rollout's cannot be compared with "
            "them: rollout.calculate_log_probs is off, and the report has no agreement of rollout and actor"
        )
    run_id = f"{config.run.name}-{secrets.token_hex(6)}"
    with run_temp() as temp:
        paths = RunPaths(run_dir, run_id, temp, _checkpoint_dir(config))
        with noted(paths):
            _drive(config, start, cluster, clock, layout, inputs, paths)


def _drive(
    config: RunConfig,
    start: Start,
    cluster: Cluster | None,
    clock: Clock,
    layout: Layout,
    inputs: Inputs,
    paths: RunPaths,
) -> None:
    """Run the driver on what has been prepared."""
    run_dir = paths.run_dir
    environment = derived_environment(config, layout, paths, None if cluster is None else cluster.interface)
    environment |= own_authentication() if cluster is None else {}
    overrides = [*hydra_overrides(config, layout, inputs, paths), *start.overrides()]
    limits = Limits(setup_s=config.run.setup_deadline_s, step_s=config.run.step_deadline_s)
    vocabulary = vocabulary_of(inputs.model)
    health = Health(config, vocabulary, paths, clock.say)
    kept = config.run.keep_checkpoints
    retention = Retention(run_dir, paths.checkpoints, kept, lambda: health.good_step, clock.say)
    if cluster is None:
        command = _describe(start, config, environment, overrides, vocabulary)
        with retention:
            supervise(command, full_environment(environment), paths, config.run.steps, limits, clock, health=health)
        return
    environment |= cluster.environment
    command = _describe(start, config, environment, [*overrides, *cluster.overrides], vocabulary)
    with cluster.formed(config, paths, environment, clock) as alarm, retention:
        supervise(command, full_environment(environment), paths, config.run.steps, limits, clock, alarm, health)


def _describe(
    start: Start, config: RunConfig, environment: dict[str, str], overrides: list[str], vocabulary: int | None
) -> list[str]:
    """Write down what is derived, and return the driver's command."""
    command = [sys.executable, *DRIVER, *overrides]
    describe = {
        "argv": command,
        "environment": masked(environment),
        "config": config.described(),
        "accepted": accepted_keys(start.changed),
        VOCABULARY: vocabulary,
    }
    write_atomically(start.run_dir / COMMAND, json.dumps(describe, indent=2) + "\n")
    return command


def _checkpoint_dir(config: RunConfig) -> Path | None:
    given = config.run.checkpoint_dir
    return None if given is None else Path(given).expanduser().absolute()


def _report(run_dir: Path, clock: Clock, failed: bool) -> None:
    from recipe.report.make import make_report

    try:
        summary = make_report(run_dir)
    except OSError as error:  # a full disk: the run has ended all the same, and the report can be made later
        again = f"python -m recipe report {run_dir}"
        clock.say(f"warning: no report could be made ({error.strerror or error}); later `{again}` makes it")
        return
    except Exception as error:  # the run's own outcome must not be hidden behind a plot that failed
        if not failed:
            raise LaunchError(f"the run finished, but its report failed: {type(error).__name__}: {error}") from error
        append_line(run_dir / "logs" / "report-error.jsonl", {"error": str(error)})
        return
    if not failed:
        _say_summary(summary, run_dir, clock)


def _say_summary(summary: dict[str, Any], run_dir: Path, clock: Clock) -> None:
    score = (summary["val_score_first"], summary["val_score_last"])
    text = " -> ".join("none" if value is None else f"{value:.3f}" for value in score)
    clock.say(f"finished {summary['steps']} steps in {minutes(summary['wall_s'])}; validation score {text}")
    clock.say(f"report: {run_dir / 'report.html'}")
