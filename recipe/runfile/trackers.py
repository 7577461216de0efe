# SPDX-License-Identifier: Apache-2.0
"""`[run] trackers`: what records the metrics besides the console and metrics.jsonl, and the variables that it reads.

Tokens come from the environment of the launcher, or from `[environment]`, and go to the trainer's process alone.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, MutableMapping

from recipe.runfile.errors import ConfigError
from recipe.runfile.paths import RunPaths
from recipe.runfile.schema import MLFLOW, SWANLAB, TENSORBOARD, WANDB, RunConfig

# Trackers of verl that are always on.
ALWAYS = ("console", "file")
# What an online tracker cannot do without.
NEEDED = {WANDB: "WANDB_API_KEY", SWANLAB: "SWANLAB_API_KEY", MLFLOW: "MLFLOW_TRACKING_URI"}
# What only the trainer's process gets.
TOKENS = (*NEEDED.values(), "MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")


def tracker_environment(config: RunConfig, paths: RunPaths) -> dict[str, str]:
    """The variables that make the run's trackers write into its directory, or send what they record."""
    run, directory = config.run, paths.run_dir
    values = {
        TENSORBOARD: {"TENSORBOARD_DIR": str(directory / "tensorboard")},
        # wandb makes a directory of its own name in it.
        WANDB: {"WANDB_DIR": str(directory), "WANDB_MODE": "online" if run.trackers_online else "offline"},
        SWANLAB: {
            "SWANLAB_LOG_DIR": str(directory / "swanlog"),
            "SWANLAB_MODE": "cloud" if run.trackers_online else "offline",
        },
        # Online, the address is the user's. Without the second, mlflow 3 refuses to write into a directory.
        MLFLOW: {}
        if run.trackers_online
        else {"MLFLOW_TRACKING_URI": (directory / "mlruns").as_uri(), "MLFLOW_ALLOW_FILE_STORE": "true"},
    }
    return {name: value for tracker in run.trackers for name, value in values[tracker].items()}


def needed(config: RunConfig, environment: Mapping[str, str]) -> list[tuple[str, str]]:
    """The trackers that lack a variable, with it, in the environment of the trainer's node."""
    given = {**environment, **config.environment}
    wanted = [(tracker, NEEDED[tracker]) for tracker in config.run.trackers if tracker in NEEDED]
    return [(tracker, name) for tracker, name in wanted if config.run.trackers_online and not given.get(name)]


def require_trackers(config: RunConfig, environment: Mapping[str, str]) -> None:
    """Require that the trackers are installed here, and have what they need.

    Raises:
        ConfigError: names the package, or the variable.
    """
    if missing := [tracker for tracker in config.run.trackers if importlib.util.find_spec(tracker) is None]:
        raise ConfigError(
            f"[run] trackers names {', '.join(missing)}, which this Python does not have; run: pip install "
            f"{' '.join(missing)}, or remove it"
        )
    for tracker, name in needed(config, environment):
        raise ConfigError(f"[run] trackers_online, and {tracker} has no {name}; set that variable where you launch")


def secrets_of(config: RunConfig, environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that may hold a secret of this run: what is told of it is scrubbed of their values."""
    return {name: environment[name] for name in TOKENS if name in environment} | config.environment


def take_tokens(environment: MutableMapping[str, str]) -> dict[str, str]:
    """Take the trackers' variables out of `environment`, and return them: no process that inherits it has them."""
    return {name: environment.pop(name) for name in TOKENS if name in environment}
