# SPDX-License-Identifier: Apache-2.0
"""Whether this process records the step it is in: the environment of a rerun says which steps are recorded.

Standard library only, as every worker of every run asks. The two functions stand around what a step does twice with
the same tokens and the same weights; where nothing is recorded they call it and are gone.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from recipe.mismatch.steps import parse_steps

# The steps to record, as `parse_steps` reads them.
STEPS_VARIABLE = "RECIPE_MISMATCH_STEPS"
# In the directory of the rerun: a directory of records for each step.
RECORDS = "records"
_step: int | None = None


def step_directory(run_dir: Path, step: int) -> Path:
    """Where the records of a step are, below the directory of a run."""
    return run_dir / RECORDS / f"step_{step}"


def steps_are_recorded() -> bool:
    """Whether this process is of a rerun that records steps: its workers then need a pass for the log-probabilities,
    also where the run makes none."""
    return STEPS_VARIABLE in os.environ


def around_generation(generate: Callable[[Any], Any], rollout: Any, prompts: Any) -> Any:
    """`generate(prompts)`, recorded when it samples for a step that is to be recorded.

    Args:
        generate: verl's rollout, of a batch of prompts.
        rollout: the NPURollout.
        prompts: a DataProto; its `global_steps` is the step, and what has `validate` is no part of it.
    """
    global _step
    if not steps_are_recorded():
        return generate(prompts)
    step = prompts.meta_info.get("global_steps")
    wanted = step in parse_steps(os.environ[STEPS_VARIABLE]) and not prompts.meta_info.get("validate", False)
    _step = step if wanted else None
    if _step is None:
        return generate(prompts)
    from recipe.mismatch.rollout_recorder import record_generation

    return record_generation(generate, rollout, prompts, _directory(_step))


def around_log_prob(compute: Callable[[Any, Any], Any], worker: Any, data: Any) -> Any:
    """`compute(worker, data)`, recorded when `data` was sampled in a step that is to be recorded.

    Args:
        compute: the actor's pass for the log-probabilities, as a function of worker and batch.
        worker: verl's ActorRolloutRefWorker.
        data: the batch, a DataProto.
    """
    if _step is None:
        return compute(worker, data)
    from recipe.mismatch.actor_recorder import record_log_prob

    return record_log_prob(compute, worker, data, _directory(_step))


def _directory(step: int) -> Path:
    return step_directory(Path(os.environ["RECIPE_RUN_DIR"]), step)
