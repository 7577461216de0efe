# SPDX-License-Identifier: Apache-2.0
"""One run from its file to its report."""

from __future__ import annotations

import dataclasses
import json
import secrets
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipe.audit.fit import verify
from recipe.launch.attempts import COMMAND, RESULT
from recipe.launch.config import ON_POLICY, RunConfig
from recipe.launch.environment import (
    RunPaths,
    derived_environment,
    full_environment,
    run_directory,
    upstream_dir,
)
from recipe.launch.errors import LaunchError
from recipe.launch.first_look import (
    first_look,
    require_one_machine,
    require_plain_interpreter,
    require_room,
)
from recipe.launch.layout import derive
from recipe.launch.overrides import DRIVER, hydra_overrides
from recipe.launch.prepare import prepare
from recipe.launch.progress import Clock, minutes
from recipe.launch.resume import Asked, Start, accepted_keys, begin_attempt, only_launcher, open_run
from recipe.launch.retention import Retention
from recipe.launch.supervisor import Limits, supervise
from recipe.report.recorder import append_line

if TYPE_CHECKING:
    from recipe.launch.cluster import Cluster


def launch(config: RunConfig, source: Path, cluster: Cluster | None = None, asked: Asked | None = None) -> Path:
    """Run it; returns the run directory, with the report in it.

    Args:
        config: the run.
        source: its file.
        cluster: forms the Ray that the driver joins; None for a driver that starts its own.
        asked: what the command line asks of a run that has been there before.

    Raises:
        LaunchError: the run did not finish. Whatever it left is in the run directory all the same.
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
        checkpoints = RunPaths(run_dir, "", Path(), _checkpoint_dir(config)).checkpoints
        start = open_run(config, run_dir, checkpoints, asked or Asked(), clock)
        begin_attempt(start, checkpoints)
        (run_dir / "run.toml").write_bytes(source.read_bytes())
        error: LaunchError | None = None
        try:
            _run(config, start, cluster, clock)
        except LaunchError as problem:
            error = problem
        result = {
            "status": "finished" if error is None else "failed",
            "error": None if error is None else str(error),
            "wall_s": round(time.monotonic() - clock.start, 1),
            "seed": config.run.seed,
            "steps_wanted": config.run.steps,
            "resumed_from_step": start.step or None,
        }
        (run_dir / RESULT).write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        _report(run_dir, clock, failed=error is not None)
    if error is not None:
        raise error
    return run_dir


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
    paths = RunPaths(
        run_dir=run_dir,
        run_id=f"{config.run.name}-{secrets.token_hex(6)}",
        ray_temp=short_temp(),
        checkpoint_dir=_checkpoint_dir(config),
    )
    environment = derived_environment(config, layout, paths, None if cluster is None else cluster.interface)
    overrides = [*hydra_overrides(config, layout, inputs, paths), *start.overrides()]
    limits = Limits(setup_s=config.run.setup_deadline_s, step_s=config.run.step_deadline_s)
    retention = Retention(run_dir, paths.checkpoints, config.run.keep_checkpoints, clock.say)
    if cluster is None:
        command = _describe(start, config, environment, overrides)
        with retention:
            supervise(command, full_environment(environment), paths, config.run.steps, limits, clock)
        return
    environment |= cluster.environment
    command = _describe(start, config, environment, [*overrides, *cluster.overrides])
    with cluster.formed(config, paths, environment, clock) as alarm, retention:
        supervise(command, full_environment(environment), paths, config.run.steps, limits, clock, alarm)


def _describe(start: Start, config: RunConfig, environment: dict[str, str], overrides: list[str]) -> list[str]:
    """Write down what is derived, and return the driver's command."""
    command = [sys.executable, *DRIVER, *overrides]
    describe = {
        "argv": command,
        "environment": environment,
        "config": dataclasses.asdict(config),
        "accepted": accepted_keys(start.changed),
    }
    (start.run_dir / COMMAND).write_text(json.dumps(describe, indent=2) + "\n", encoding="utf-8")
    return command


def _checkpoint_dir(config: RunConfig) -> Path | None:
    given = config.run.checkpoint_dir
    return None if given is None else Path(given).expanduser().absolute()


def short_temp() -> Path:
    """A new directory whose path leaves room for Ray's socket names."""
    parent = "/tmp" if len(tempfile.gettempdir()) > 30 and Path("/tmp").is_dir() else None
    return Path(tempfile.mkdtemp(prefix="grpo-", dir=parent))


def _report(run_dir: Path, clock: Clock, failed: bool) -> None:
    from recipe.report.make import make_report

    try:
        summary = make_report(run_dir)
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
