# SPDX-License-Identifier: Apache-2.0
"""From which of its checkpoints a run goes on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from recipe.checkpoints import Checkpoint
from recipe.launch.verify import sum_problem
from recipe.report.metrics import read_steps
from recipe.runfile.errors import ConfigError


def choose(
    run_dir: Path,
    checkpoints: Path,
    available: Sequence[Checkpoint],
    from_step: int | None,
    verify: bool,
    say: Callable[[str], None],
) -> Checkpoint:
    """The checkpoint to go on from; says which newer ones are passed over, and why.

    Args:
        run_dir: the run's directory, with its metrics.
        checkpoints: the directory of all of them, for messages.
        available: all that are there, by step.
        from_step: the step that is asked for; None for the newest whole one.
        verify: compare checksums too.
        say: takes a line.

    Raises:
        ConfigError: none is whole, or not the one that is asked for.
    """
    if from_step is not None:
        return _of_step(checkpoints, available, from_step, verify, say)
    logged = {step.number for step in read_steps(run_dir / "metrics.jsonl")}
    passed: list[str] = []
    problem: str | None
    for checkpoint in reversed(available):
        older = any(
            earlier.whole and earlier.step < checkpoint.step and earlier.step in logged for earlier in available
        )
        if checkpoint.problem is not None:
            problem = checkpoint.problem
        elif checkpoint.step not in logged and older:
            problem = f"metrics.jsonl has no line of step {checkpoint.step}"
        else:
            problem = _sums(checkpoint, say) if verify else None
        if problem is None:
            if passed:
                say(f"passed over: {'; '.join(passed)}")
            return checkpoint
        passed.append(f"{checkpoint.path.name} ({problem})")
    raise ConfigError(
        f"no checkpoint in {checkpoints} is whole: {'; '.join(passed)}; expected one whose files have the sizes of its "
        "checkpoint.json; bring one back, or give --fresh to begin anew, or another --name"
    )


def _of_step(
    checkpoints: Path, available: Sequence[Checkpoint], step: int, verify: bool, say: Callable[[str], None]
) -> Checkpoint:
    intact = [checkpoint for checkpoint in available if checkpoint.whole]
    named = next((checkpoint for checkpoint in available if checkpoint.step == step), None)
    problem = "there is none" if named is None else named.problem
    if problem is None and named is not None and verify:
        problem = _sums(named, say)
    if problem is None and named is not None:
        return named
    steps = ", ".join(str(checkpoint.step) for checkpoint in intact if checkpoint.step != step) or "none"
    raise ConfigError(
        f"--from-step {step}: {checkpoints} holds no whole checkpoint of that step ({problem}); whole are those of "
        f"steps: {steps}"
    )


def _sums(checkpoint: Checkpoint, say: Callable[[str], None]) -> str | None:
    assert checkpoint.manifest is not None
    problem = sum_problem(checkpoint.path, checkpoint.manifest, say)
    if problem is None:
        say(f"{checkpoint.path.name}: every file has the SHA-256 of its manifest")
    return problem
