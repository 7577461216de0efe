# SPDX-License-Identifier: Apache-2.0
"""The end of a save: every file is brought to the disk and summed, by the worker that wrote it, and then listed.

What the manifest is, and what is made of it, is in `recipe.checkpoints`.
"""

# NPU-ADAPTATION: a checkpoint counts when all its files are on the disk and listed with their sums

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ray

from recipe.checkpoints import (
    UNFINISHED,
    FileSum,
    Manifest,
    NotWhole,
    list_files,
    sum_files,
    write_manifest,
)
from recipe.files import sync_directory

# Names of the files that Megatron-core's writers of a rank make: __RANK_NUMBER.distcp.
_OF_RANK = re.compile(r"(?:.*/)?__([0-9]+)_[0-9]+\.distcp")
# A rank writes two such files.
THREADS = 2
# Checkpoint and manifest of the save that only lacks its manifest; empty without one.
_held: list[tuple[Path, Manifest]] = []


def checkpoint_of(trainer: Any) -> Path:
    """The directory that verl's trainer saves its present step in."""
    return Path(trainer.config.trainer.default_local_dir).absolute() / f"global_step_{trainer.global_steps}"


def begin_save(checkpoint: Path) -> None:
    """Note in the directory that it is being written."""
    checkpoint.mkdir(parents=True, exist_ok=True)
    (checkpoint / UNFINISHED).touch()
    sync_directory(checkpoint)


def finish_save(checkpoint: Path, step: int, workers: Sequence[Any]) -> None:
    """Have the workers of a group sum what they wrote, and make the manifest when it agrees with the disk.

    It is written by `declare`, after the metrics of the step: whoever goes on from a checkpoint has those of its step.

    Args:
        checkpoint: what was saved; every worker sees it under this path.
        step: its step.
        workers: the group's actors, by rank.

    Raises:
        NotWhole: a file that one process sees has another size for another, or is not there for it.
    """
    sizes = list_files(checkpoint)
    parts = share_out(list(sizes), len(workers))
    pending = [
        worker.__ray_call__.remote(_sum, str(checkpoint), names) for worker, names in zip(workers, parts, strict=True)
    ]
    sums: dict[str, FileSum] = {}
    for part in ray.get(pending):
        sums |= {name: FileSum(*values) for name, values in part.items()}
    if problem := _disagreement(sizes, sums):
        raise NotWhole(f"{checkpoint}: {problem}; expected storage on which all nodes see the same files")
    _held[:] = [(checkpoint, Manifest(step, dict(sorted(sums.items())), run_settings()))]


def declare(metrics: int | None) -> None:
    """Write the manifest of a save that has come to its end; `metrics` is the open file that must be on the disk first.

    Without such a save nothing happens.
    """
    while _held:
        if metrics is not None:
            os.fsync(metrics)
        write_manifest(*_held.pop())


def share_out(names: Sequence[str], ranks: int) -> list[list[str]]:
    """The files that each rank sums: its own, and in turn those whose names have no rank.

    >>> share_out(["__1_0.distcp", "common.pt", "data.pt"], 2)
    [['common.pt'], ['__1_0.distcp', 'data.pt']]
    """
    parts: list[list[str]] = [[] for _ in range(ranks)]
    unranked = 0
    for name in names:
        match = _OF_RANK.fullmatch(name)
        if match and int(match[1]) < ranks:
            parts[int(match[1])].append(name)
        else:
            parts[unranked % ranks].append(name)
            unranked += 1
    return parts


def _sum(worker: Any, checkpoint: str, names: list[str]) -> dict[str, tuple[int, str]]:
    """Sum files, in the worker's process; plain values, so that the answer needs no class of ours."""
    sums = sum_files(Path(checkpoint), names, THREADS, sync=True)
    return {name: (file_sum.bytes, file_sum.sha256) for name, file_sum in sums.items()}


def _disagreement(sizes: Mapping[str, int], sums: Mapping[str, FileSum]) -> str | None:
    if missing := sizes.keys() - sums.keys():
        return f"nobody has summed {', '.join(sorted(missing))}"
    for name, size in sizes.items():
        if sums[name].bytes != size:
            return f"{name} has {size} bytes for the trainer and {sums[name].bytes} for the worker that summed it"
    return None


def run_settings() -> dict[str, Any]:
    """The settings that the launcher wrote into the run's command.json; empty where no launcher started the run."""
    try:
        value = json.loads(Path(os.environ["RECIPE_RUN_DIR"], "command.json").read_text(encoding="utf-8"))
        return {"config": value["config"], "accepted": value["accepted"]}
    except (KeyError, OSError, ValueError):
        return {}
