# SPDX-License-Identifier: Apache-2.0
"""Where a run keeps things, and where this repository has what it runs on."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path

from recipe.runfile.errors import LaunchError
from recipe.runfile.schema import RunConfig
from recipe.upstreams import upstream_tree

REPO = Path(__file__).resolve().parents[2]
# In the directory of a run: what it was started with, and how it ended.
COMMAND, RESULT = "command.json", "result.json"


@dataclass(frozen=True)
class RunPaths:
    """Where a run keeps things; `temp` is this node's temporary directory of it (`recipe.launch.temporary`)."""

    run_dir: Path
    run_id: str
    temp: Path
    checkpoint_dir: Path | None = None

    @classmethod
    def of(cls, config: RunConfig) -> RunPaths:
        """The paths of a run, with stand-ins for the names that a launch makes up."""
        directory = config.run.checkpoint_dir
        checkpoints = None if directory is None else Path(directory).expanduser().absolute()
        return cls(run_directory(config), f"{config.run.name}-shown", Path("/tmp/grpo-shown"), checkpoints)

    def launched(self, run_id: str, temp: Path) -> RunPaths:
        """The paths of one launch, with its own names."""
        return dataclasses.replace(self, run_id=run_id, temp=temp)

    @property
    def checkpoints(self) -> Path:
        return self.checkpoint_dir or self.run_dir / "checkpoints"

    @property
    def metrics(self) -> Path:
        return self.run_dir / "metrics.jsonl"

    @property
    def validation(self) -> Path:
        return self.run_dir / "validation"

    @property
    def profile(self) -> Path:
        return self.run_dir / "profile"

    @property
    def driver_log(self) -> Path:
        return self.run_dir / "logs" / "driver.log"

    @property
    def ray_temp(self) -> Path:
        return self.temp / "ray"

    @property
    def scratch(self) -> Path:
        """TMPDIR of the run's processes: verl's lock files, vLLM's sockets."""
        return self.temp / "tmp"

    @property
    def failure(self) -> Path:
        """Why the driver failed, by itself (`recipe.launch.failure`)."""
        return self.run_dir / "logs" / "failure.json"

    @property
    def slots(self) -> Path:
        return self.run_dir / "npu_sim.slots"


def upstream_dir() -> Path:
    """The synced upstream sources; RECIPE_UPSTREAM names another tree's."""
    return upstream_tree(REPO)


def require_verl(upstream: Path) -> None:
    """Refuse a tree of upstream sources without the trainer; LaunchError says what to type."""
    if not (upstream / "verl").is_dir():
        raise LaunchError(f"{upstream} holds no verl; run `python -m recipe sync` (or scripts/setup.sh) first")


def import_path() -> str:
    """The PYTHONPATH of the processes of a run. The upstreams are before this repository, whose root may hold trees of
    theirs that were copied in by hand: `upstream/` shows them with ours in them."""
    return os.pathsep.join([str(upstream_dir()), str(REPO)])


def run_directory(config: RunConfig) -> Path:
    """Where the run keeps its files: `NAME` below the run file's output_dir, else below `runs_dir()`."""
    parent = runs_dir() if config.run.output_dir is None else Path(config.run.output_dir).expanduser().absolute()
    return parent / config.run.name


def runs_dir() -> Path:
    """Where runs are kept; RECIPE_RUNS names another place than `runs/`."""
    return Path(os.environ.get("RECIPE_RUNS", REPO / "runs")).absolute()


def cache_dir() -> Path:
    """The cache that runs share: models, data and checkpoints by the hash of their inputs."""
    return runs_dir() / ".cache"
