# SPDX-License-Identifier: Apache-2.0
"""`[run]`: name, length and files of a run."""

from __future__ import annotations

from dataclasses import dataclass

from recipe.runfile.typed_toml import CHANGES, FREE, key

TENSORBOARD, WANDB, SWANLAB, MLFLOW = TRACKERS = ("tensorboard", "wandb", "swanlab", "mlflow")


@dataclass(frozen=True, kw_only=True)
class Run:
    """Name, length and files of the run. The deadlines bound the time without a sign of progress."""

    name: str = key("name of the run and of its directory", gives="trainer.experiment_name", on_resume=FREE)
    steps: int = key(
        "steps: rollouts, each with its updates", least=1, gives="trainer.total_training_steps", on_resume=FREE
    )
    validate_every: int = key("steps between validations; 0: none", gives="trainer.test_freq", on_resume=FREE)
    validate_first: bool | None = key(
        "validate before the first step too; default: yes, unless validate_every is 0",
        None,
        gives="trainer.val_before_train",
        on_resume=FREE,
    )
    seed: int = key(
        "seed of the tiny model, the order of the data, the training, and what the rollout samples",
        1,
        most=2**31 - 1,
        gives="data.seed, actor.megatron.seed",
        on_resume=CHANGES,
    )
    save_every: int = key("steps between checkpoints; 0: none", 0, gives="trainer.save_freq", on_resume=FREE)
    keep_checkpoints: int = key(
        "so many of the newest whole checkpoints stay, of all attempts together, and beside them the one with the best "
        "validation score and, for each rule of the watch, the last one before it was broken; the oldest goes after "
        "the next is whole, so that the disk needs room for one more",
        2,
        least=1,
        on_resume=FREE,
    )
    resume: str = key(
        "auto: go on from the last checkpoint of this run, if there is one; never: start anew",
        "auto",
        choices=("auto", "never"),
        gives="trainer.resume_mode",
        on_resume=FREE,
    )
    output_dir: str | None = key(
        "directory that holds the run's directory, the same on every node; default: $RECIPE_RUNS, else runs/",
        None,
        gives="RECIPE_RUN_DIR, VERL_FILE_LOGGER_PATH, trainer.validation_data_dir",
        on_resume=FREE,
    )
    checkpoint_dir: str | None = key(
        "directory of the run's checkpoints, the same on every node; default: checkpoints/ in the run's directory",
        None,
        gives="trainer.default_local_dir",
        on_resume=FREE,
    )
    trackers: list[str] = key(
        "what records the metrics besides the console and metrics.jsonl; in the run's directory, each a package to be "
        "installed",
        [],
        choices=TRACKERS,
        gives="trainer.logger, TENSORBOARD_DIR, WANDB_DIR, WANDB_MODE, SWANLAB_LOG_DIR, SWANLAB_MODE, "
        "MLFLOW_TRACKING_URI, MLFLOW_ALLOW_FILE_STORE",
        on_resume=FREE,
    )
    trackers_online: bool = key(
        "wandb, swanlab and mlflow send what they record; WANDB_API_KEY, SWANLAB_API_KEY and MLFLOW_TRACKING_URI are "
        "then taken from the environment",
        False,
        gives="WANDB_MODE, SWANLAB_MODE, MLFLOW_TRACKING_URI, MLFLOW_ALLOW_FILE_STORE",
        on_resume=FREE,
    )
    setup_deadline_s: int = key("longest silence until the first step", 600, unit="s", least=1, on_resume=FREE)
    step_deadline_s: int = key("longest silence after that", 240, unit="s", least=1, on_resume=FREE)

    @property
    def most_checkpoints(self) -> int:
        """The most whole checkpoints at one time: those to keep, the next one, and the one with the best score.

        At least two are kept, as the last one known to be good is usually the newest but one.
        """
        return max(self.keep_checkpoints, 2) + 1 + (self.validate_every > 0)
