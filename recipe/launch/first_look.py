# SPDX-License-Identifier: Apache-2.0
"""What is wrong with a run file before anything is made for it: found in a second, with the standard library alone."""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path

from recipe.data.records import DataError
from recipe.data.rows import read_rows
from recipe.runfile.derive import Derived, derive_run
from recipe.runfile.errors import ConfigError, LaunchError
from recipe.runfile.schema import CUDA, NPU, SIM, RunConfig

# A run of the tiny model leaves some 10 MiB, and Ray's logs.
ROOM_MIB = 100
# Ray starts its workers by a shell command in which the interpreter's path is not quoted.
_SPECIAL = re.compile(r"""[\s'"$`&;()|<>*?#\\\[\]]""")
_DEVICES = {SIM: "simulated NPUs", NPU: "NPU dies", CUDA: "GPUs"}


def first_look(config: RunConfig) -> Derived:
    """Look at the run's layout, its model where that is here and, where they are a JSON file, at its problems; returns
    what else follows from it.

    Args:
        config: the run.

    Raises:
        ConfigError: the layout does not add up, the model cannot be trained, or the problems cannot be read or used.
    """
    derived = derive_run(config)
    derived.layout_for(None)
    _ = derived.architecture
    if config.data.kind == "json":
        _require_problems(config)
    return derived


def _require_problems(config: RunConfig) -> None:
    path = Path(str(config.data.path)).expanduser().absolute()
    schema = "give a JSON list of records with problem, answer and solution"
    if not path.is_file():
        raise ConfigError(f"data: {path} is not a file; {schema}")
    try:
        rows, dropped = read_rows(path)
    except DataError as error:
        raise ConfigError(f"data: {error}; {schema}") from None
    if not rows:
        raise ConfigError(f"data: {path} has no problem with an answer ({dropped.total} records left out); {schema}")


def require_one_machine(config: RunConfig, source: Path) -> None:
    """Refuses a run that one launcher cannot start by itself.

    Raises:
        ConfigError: the run needs devices or nodes that `scripts/launch.sh` brings together.
    """
    cluster = config.cluster
    if cluster.own_ray:
        return
    needs = f"{cluster.nodes} nodes with {cluster.dies_per_node} {_DEVICES[cluster.device]} each"
    raise ConfigError(
        f"{source} needs {needs}: type `scripts/launch.sh {source}` on each node; configs/sim.toml runs on any machine"
    )


def require_plain_interpreter(path: str) -> None:
    """Refuse a Python with whose path Ray cannot start workers: the run would wait for them until the deadline.

    Raises:
        LaunchError: the path has a space, or another character that a shell reads.
    """
    special = _SPECIAL.search(path)
    if special:
        raise LaunchError(
            f"{path}: Ray cannot start workers from a path with {special[0]!r} in it; make the environment in another "
            "place (RECIPE_VENV)"
        )


def require_room(directory: Path) -> None:
    """Makes the directory, and looks whether files can be made in it.

    Raises:
        LaunchError: they cannot, or there is less than `ROOM_MIB` of space.
    """
    elsewhere = "name another place in RECIPE_RUNS, or in [run] output_dir of the run file"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            free = shutil.disk_usage(directory).free // 2**20
    except OSError as error:
        raise LaunchError(f"{directory} cannot be written to ({error.strerror}); {elsewhere}") from None
    if free < ROOM_MIB:
        raise LaunchError(f"{directory} has {free} MiB of free disk; a run needs at least {ROOM_MIB} MiB: {elsewhere}")
