# SPDX-License-Identifier: Apache-2.0
"""Steps of a run, computed again with both engines recorded: from its last checkpoint before them, or its beginning.

A run is the same run each time, so what is recorded is what happened; that it was is checked by the metrics.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from recipe.checkpoints import last_whole, step_of
from recipe.mismatch.record import RecordError
from recipe.mismatch.steps import steps_text
from recipe.mismatch.switch import STEPS_VARIABLE, step_directory
from recipe.report.metrics import OF_THE_MACHINE, read_steps
from recipe.runfile.config import load
from recipe.runfile.errors import ConfigError
from recipe.runfile.masking import HIDDEN
from recipe.runfile.paths import COMMAND
from recipe.runfile.schema import RunConfig
from recipe.runfile.toml_text import as_toml

# Below a run's directory: the records by step, and the directory of the run that made them.
DIRECTORY, RERUN = "mismatch", "rerun"


def records_of(run_dir: Path, step: int) -> Path:
    """Where the records of a step of a run are kept."""
    return run_dir / DIRECTORY / f"step_{step}"


def require_steps(run_dir: Path, steps: Collection[int]) -> None:
    """Refuse what is no run, and steps that it has not done.

    Raises:
        ConfigError: says what was found.
    """
    if not (run_dir / COMMAND).is_file():
        raise ConfigError(f"{run_dir} holds no {COMMAND}; give the directory of a run, runs/NAME")
    done = [step.number for step in read_steps(run_dir / "metrics.jsonl") if step.trained]
    if missing := sorted(set(steps) - set(done)):
        has = f"steps {steps_text(done)}" if done else "no step yet"
        raise ConfigError(f"{run_dir} has {has}; step {steps_text(missing)} is not among them")


def record_again(run_dir: Path, steps: Collection[int]) -> None:
    """Run the steps again and keep their records below `run_dir`; progress goes to standard error.

    Raises:
        ConfigError: the run is one that cannot be recorded.
        LaunchError: it did not come through.
        RecordError: what it computed is not what the run had computed, or records are missing.
    """
    from recipe.launch.errors import TrainingStopped
    from recipe.launch.resume import ResumeRequest, only_launcher
    from recipe.launch.run import launch
    from recipe.stopping import raise_on_stop_signals

    place = run_dir / DIRECTORY
    raise_on_stop_signals()
    with only_launcher(DIRECTORY, place):
        place.mkdir(exist_ok=True)
        source = place / "run.toml"
        config, checkpoint = _prepare(run_dir, source, steps)
        request = ResumeRequest(from_step=None if checkpoint is None else step_of(checkpoint.name))
        # A rule of the watch that has stopped the run stops this one at the same step, which is recorded by then.
        with contextlib.redirect_stdout(sys.stderr), contextlib.suppress(TrainingStopped):
            launch(config, source, request=request)
        _require_the_same(run_dir, place / RERUN, steps)
        _keep(run_dir, steps)


def _prepare(run_dir: Path, source: Path, steps: Collection[int]) -> tuple[RunConfig, Path | None]:
    """Write the run file of the rerun, and make its directory ready; returns from which checkpoint it goes on."""
    values = _settings(run_dir)
    source.write_text(as_toml(_rerun_settings(values, source.parent, steps)), encoding="utf-8")
    config = load(source)
    require_recordable(config)
    directory = values["run"].get("checkpoint_dir")
    checkpoints = run_dir / "checkpoints" if directory is None else Path(directory).expanduser()
    checkpoint = last_whole(checkpoints, min(steps) - 1)
    rerun = source.parent / RERUN
    if rerun.exists():
        shutil.rmtree(rerun)
    if checkpoint is not None:
        _seem_saved(run_dir, rerun, checkpoint)
    return config, checkpoint


def _keep(run_dir: Path, steps: Collection[int]) -> None:
    """Move the records out of the rerun's directory, which the next rerun removes."""
    rerun = run_dir / DIRECTORY / RERUN
    for step in steps:
        made, kept = step_directory(rerun, step), records_of(run_dir, step)
        if not made.is_dir():
            raise RecordError(f"{rerun} has recorded nothing of step {step}; its logs are in {rerun / 'logs'}")
        if kept.exists():
            shutil.rmtree(kept)
        os.replace(made, kept)


def require_recordable(config: RunConfig) -> None:
    """Refuse a run in which there is nothing to compare, or nothing to hook.

    Raises:
        ConfigError: says which key stands against it.
    """
    if config.rollout.graph_mode:
        raise ConfigError(
            "[rollout] graph_mode = true: compiled graphs run no hooks, so the rollout cannot be recorded"
        )


def _settings(run_dir: Path) -> dict[str, Any]:
    """The run file as the run took it, options included."""
    try:
        values = json.loads((run_dir / COMMAND).read_text(encoding="utf-8"))["config"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise ConfigError(f"{run_dir / COMMAND} does not tell with which settings the run was made")
    return values


def _rerun_settings(values: Mapping[str, Any], place: Path, steps: Collection[int]) -> dict[str, Any]:
    """The same settings, in a directory of its own, up to the last step wanted, without checkpoints."""
    environment = {name: value for name, value in (values.get("environment") or {}).items() if value != HIDDEN}
    run = {**values["run"], "name": RERUN, "output_dir": str(place), "checkpoint_dir": None}
    run |= {"steps": max(steps), "save_every": 0, "resume": "auto"}
    changed = {**values, "run": run, "environment": {**environment, STEPS_VARIABLE: steps_text(steps)}}
    return _given(changed)


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    """Without what a run file leaves out: None, and empty tables and lists."""
    kept = {name: _given(value) if isinstance(value, Mapping) else value for name, value in values.items()}
    return {name: value for name, value in kept.items() if value is not None and value not in ({}, [])}


def _seem_saved(run_dir: Path, rerun: Path, checkpoint: Path) -> None:
    """Make the rerun's directory that of an attempt which has saved this checkpoint: a link, that is only read."""
    (rerun / "checkpoints").mkdir(parents=True)
    (rerun / "checkpoints" / checkpoint.name).symlink_to(checkpoint.absolute(), target_is_directory=True)
    for name in (COMMAND, "metrics.jsonl"):
        shutil.copyfile(run_dir / name, rerun / name)
    (rerun / "logs").mkdir()


def _require_the_same(run_dir: Path, rerun: Path, steps: Collection[int]) -> None:
    """Require that the rerun has the metrics of the run at these steps; its last step is validated in any case."""
    left, right = ({one.number: one for one in read_steps(path / "metrics.jsonl")} for path in (run_dir, rerun))
    for step in steps:
        if step not in right:
            raise RecordError(f"{rerun} did not come to step {step}; its logs are in {rerun / 'logs'}")
        for name, value in left[step].values.items():
            again = right[step].values.get(name)
            if not OF_THE_MACHINE.fullmatch(name) and not name.startswith("val-") and repr(value) != repr(again):
                raise RecordError(
                    f"step {step} of {run_dir} had {name} = {value!r}, and has {again!r} when it is run again: code, "
                    "settings or data have changed since, so its differences cannot be looked at any more"
                )
