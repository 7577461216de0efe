# SPDX-License-Identifier: Apache-2.0
"""What the process of one stage is asked, and what it answers; both are JSON files."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recipe.files import write_atomically
from recipe.plan.page import TITLES as PLANNED
from recipe.rehearse.lengths import Lengths

# The phases in which the actor's weights go to the rollout, and in which a checkpoint is saved.
SWITCH, SAVE = "switch", "save"
TITLES = {"build": "building", **PLANNED, SAVE: "checkpoint save"}


@dataclass(frozen=True)
class Job:
    """A rehearsal of one pipeline stage.

    Attributes:
        key: of the result; another one stands for other settings or other code.
        rank, world_size: the die that is rehearsed, and the dies of the run.
        overrides: of verl's configuration.
        forward_sequences, update_sequences: sequences of the die in the passes without gradients and in the update.
        rollout_sequences, decode_steps: sequences of the die's engine (0: no rollout), and tokens generated of each.
        lengths: tokens of prompts and answers.
        load: the share that the die's experts get, as a multiple of an even one.
        saves: a checkpoint is saved after the last step.
        hollow_from_bytes: tensors of floating point numbers from this size on have no contents.
    """

    key: str
    stage: int
    rank: int
    world_size: int
    overrides: list[str]
    forward_sequences: int
    update_sequences: int
    rollout_sequences: int
    decode_steps: int
    old_log_probs: bool
    lengths: Lengths
    load: float
    steps: int
    seed: int
    saves: bool
    hollow_from_bytes: int
    # Files with the tensors of each stage (recipe/rehearse/pipeline.py); empty where there is no sync between stages.
    described: tuple[str, ...] = ()
    # The stage is built, and its tensors are described; nothing else.
    only_describe: bool = False

    def write(self, path: Path) -> None:
        """Write it where the process will read it."""
        write_atomically(path, json.dumps(dataclasses.asdict(self), indent=1))

    @classmethod
    def read(cls, path: Path) -> Job:
        """The job in a file."""
        values = json.loads(path.read_text(encoding="utf-8"))
        lengths = {**values["lengths"]}
        for part in ("prompts", "responses"):
            lengths[part] = tuple((tokens, count) for tokens, count in lengths[part])
        return cls(**{**values, "described": tuple(values["described"]), "lengths": Lengths(**lengths)})


@dataclass(frozen=True)
class Phase:
    """What was counted in a phase of the last step.

    Attributes:
        peak_bytes, resident_bytes: on the die, at most and at the phase's end.
        contents: what there was at the fullest moment, largest first.
        pinned_bytes: page-locked host memory of the process, at most.
        traffic: by process group and collective.
        operators: that ran on the die, communication not among them.
        wall_s: seconds that the rehearsal of it took; nothing to do with a real die's.
        expert_load: of the fullest layer, as a multiple of an even share; None where no experts ran.
    """

    peak_bytes: int
    resident_bytes: int
    pinned_bytes: int
    contents: dict[str, int]
    traffic: list[dict[str, Any]]
    operators: int
    wall_s: float
    expert_load: float | None = None


@dataclass(frozen=True)
class StageResult:
    """What a stage's process has counted; `saved` has the fields of `saving.Saved`, `oom` says what did not fit."""

    key: str
    stage: int
    rank: int
    phases: dict[str, Phase]
    wall_s: float
    rss_bytes: int
    numbers_read: dict[str, int] = field(default_factory=dict)
    mindspeed: bool = False
    saved: dict[str, dict[str, int]] | None = None
    oom: dict[str, Any] | None = None

    def write(self, path: Path) -> None:
        """Write it whole or not at all."""
        write_atomically(path, json.dumps(dataclasses.asdict(self), indent=1))

    @classmethod
    def read(cls, path: Path, key: str | None) -> StageResult | None:
        """The result in a file; None where there is none with this key, or with any where that is None."""
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            if key is not None and values["key"] != key:
                return None
            phases = {name: Phase(**phase) for name, phase in values.pop("phases").items()}
            return cls(phases=phases, **values)
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return None
