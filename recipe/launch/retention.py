# SPDX-License-Identifier: Apache-2.0
"""Which checkpoints a run keeps, and the removal of the others while it goes on.

verl removes the oldest before it writes the next, forgets at every start what earlier attempts have saved, and leaves
the directories. Here a checkpoint goes only when enough later ones are whole, whichever attempt wrote them.
"""

from __future__ import annotations

import math
import shutil
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from recipe.checkpoints import MANIFEST, Checkpoint, look, step_of
from recipe.launch.attempts import ASIDE, REMOVED, mark_removed
from recipe.report.marks import STOP, WARNING, Mark, read_marks
from recipe.report.metrics import Step, read_steps

LOOK_EVERY_S = 5.0


class Retention:
    """While the block runs, a thread removes the checkpoints that are beyond `[run] keep_checkpoints`.

    It looks whenever another checkpoint has become whole, and once more at the end of the block. What it cannot remove
    stays until the next time and is told once: a run does not end because of it.
    """

    def __init__(
        self, run_dir: Path, checkpoints: Path, keep: int, good_step: Callable[[], int], say: Callable[[str], None]
    ) -> None:
        """`keep`: so many of the newest whole ones stay in any case. `good_step`: the last step known to be good."""
        self._run_dir, self._checkpoints, self._keep, self._say = run_dir, checkpoints, keep, say
        self._good_step = good_step
        self._told: set[str] = set()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Retention:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        seen: frozenset[int] | None = None
        while True:
            last = self._done.wait(LOOK_EVERY_S if seen is not None else 0)
            try:
                declared = _declared(self._checkpoints)
                if declared != seen:
                    prune(self._run_dir, self._checkpoints, self._keep, self._good_step())
                    seen = declared
            except OSError as error:
                self._tell(f"old checkpoints are not removed: {error.filename}: {error.strerror}")
                seen = seen or frozenset()
            if last:
                return

    def _tell(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            self._say(text)


def _declared(checkpoints: Path) -> frozenset[int]:
    """The steps whose checkpoints have a manifest; cheap to find, however many files a checkpoint has."""
    steps = (step_of(path.parent.name) for path in checkpoints.glob(f"global_step_*/{MANIFEST}"))
    return frozenset(step for step in steps if step is not None)


def prune(run_dir: Path, checkpoints: Path, keep: int, good_step: int = 0) -> list[Path]:
    """Remove what is beyond the number to keep; returns the directories that were removed, by their earlier names.

    `good_step` is the last step that no rule of the watch speaks against (0: none).

    Raises:
        OSError: something cannot be looked at or removed; the rest is tried another time.
    """
    available = look(checkpoints)
    marks, steps = read_marks(run_dir), read_steps(run_dir / "metrics.jsonl")
    removed = [checkpoint.path for checkpoint in to_remove(available, keep, steps, marks, good_step)]
    for path in removed:
        mark_removed(path)
    # A crash in the middle of this leaves directories that are taken for no checkpoint.
    for rest in [*checkpoints.glob(f"{REMOVED}*")]:
        shutil.rmtree(rest)
    for empty in (checkpoints / ASIDE).glob("*"):
        if not any(empty.iterdir()):
            empty.rmdir()
    return removed


def to_remove(
    available: Sequence[Checkpoint], keep: int, steps: Iterable[Step], marks: Iterable[Mark], good_step: int = 0
) -> list[Checkpoint]:
    """The checkpoints that may go, of those of a run by step.

    These stay: the newest `keep` whole ones; the one with the best validation score; the last one known to be good,
    which may be older than the newest when a rule is broken late; for each rule of the watch the last one before it was
    first broken; and damaged ones, which somebody may want to look at. The rest of a save that was cut short goes once
    there is a later whole one.
    """
    intact = [checkpoint for checkpoint in available if checkpoint.whole]
    if not intact:
        return []
    good = [checkpoint.step for checkpoint in intact if checkpoint.step <= good_step]
    newest = {checkpoint.step for checkpoint in intact[-keep:]}
    protected = newest | {*good[-1:]} | _best(intact, steps) | _before_trouble(intact, marks)
    old = [checkpoint for checkpoint in intact if checkpoint.step not in protected]
    last = intact[-1].step
    cut_short = [checkpoint for checkpoint in available if checkpoint.unfinished and checkpoint.step < last]
    return sorted([*old, *cut_short], key=lambda checkpoint: checkpoint.step)


def _best(checkpoints: Sequence[Checkpoint], steps: Iterable[Step]) -> set[int]:
    """The step of the best checkpoint, by the last validation up to its step; of equals, the first after the latest
    one."""
    scores = [(step.number, score) for step in steps if (score := step.validation_score) is not None]
    scored = []
    for checkpoint in checkpoints:
        validated, score = max((pair for pair in scores if pair[0] <= checkpoint.step), default=(0, math.nan))
        if not math.isnan(score):
            scored.append((score, validated, -checkpoint.step))
    return {-max(scored)[2]} if scored else set()


def _before_trouble(checkpoints: Sequence[Checkpoint], marks: Iterable[Mark]) -> set[int]:
    first: dict[str, int] = {}
    for mark in marks:
        if mark.kind in (WARNING, STOP):
            first[mark.name] = min(mark.step, first.get(mark.name, mark.step))
    before = ([checkpoint.step for checkpoint in checkpoints if checkpoint.step < step] for step in first.values())
    return {steps[-1] for steps in before if steps}
