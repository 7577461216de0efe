# SPDX-License-Identifier: Apache-2.0
"""Processes that are the dies of a layout of the tiny model, with verl's workers."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from recipe.plan.subject import Subject
from recipe.runfile.derive import Inputs, derive_run
from recipe.runfile.paths import REPO, RunPaths
from tests.ranks import Ranks
from tests.recipe.plan.layouts import PROMPT, RESPONSE, Made

LIMIT_S = 240


class Workers:
    """The ranks of layouts, one layout after another, of a process that imports everything once.

    Args:
        module: has the ranks' `run(job, rank)`.
        mindspeed: the upstream tree that has it, where it takes part.
        log: what that process says.
    """

    def __init__(self, module: str, mindspeed: Path | None, log: Path) -> None:
        self.mindspeed = mindspeed
        self._ranks = Ranks(module, log=log)

    def run(
        self,
        planned: Subject,
        made: Made,
        directory: Path,
        *,
        weights: bool = True,
        ranks: int | None = None,
        **job: Any,
    ) -> list[Any]:
        """What each rank has left.

        Args:
            planned: the layout.
            made: the model.
            directory: for what ranks leave.
            weights: they load those of the model; else theirs are random.
            ranks: so many processes; by default one for each die.
            job: more of what they are told.
        """
        config, layout = planned.config, planned.layout
        directory.mkdir(exist_ok=True)
        paths = RunPaths(directory, "plan", directory / "ray")
        told = {
            "overrides": self._overrides(planned, made, paths, weights),
            "prompt": PROMPT,
            "response": RESPONSE,
            "rollout_sequences": layout.rollout_sequences_per_engine,
            "actor_sequences": layout.actor_sequences_per_rank,
            "out": str(directory / "counted"),
            **job,
        }
        environment = {
            **derive_run(config, paths=paths).environment, "PYTHONPATH": self._path(), "RECIPE_RUN_DIR": ""
        }  # fmt: skip
        ranks = layout.dies if ranks is None else ranks
        self._ranks.run(told, directory / "rank", ranks=ranks, limit_s=LIMIT_S, **environment)
        return [json.loads(Path(f"{told['out']}.{rank}.json").read_text()) for rank in range(ranks)]

    def close(self) -> None:
        self._ranks.close()

    def _overrides(self, planned: Subject, made: Made, paths: RunPaths, weights: bool) -> list[str]:
        nowhere = paths.run_dir / "none.parquet"
        inputs = Inputs(made.hf, made.checkpoint if weights else None, nowhere, nowhere, PROMPT)
        derived = derive_run(planned.config, inputs, paths, upstream=self.mindspeed or paths.run_dir)
        return [o for o in derived.overrides if not o.startswith("hydra.")] + [
            "actor_rollout_ref.actor.optim.total_training_steps=10"  # the trainer sets it
        ]

    def _path(self) -> str:
        path = os.environ["PYTHONPATH"]
        return path if self.mindspeed is None else os.pathsep.join([str(REPO), str(self.mindspeed), path])
