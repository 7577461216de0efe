# SPDX-License-Identifier: Apache-2.0
"""Old checkpoints go once enough later ones are whole; the best one and the last good one do not."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recipe.checkpoints import MANIFEST, Checkpoint, look
from recipe.launch import retention
from recipe.launch.retention import Retention, prune, to_remove
from recipe.report.marks import SETTING, STOP, WARNING, Mark, add_mark
from recipe.report.metrics import Step
from tests.recipe.saved import save, save_unfinished, unsynced

__all__ = ["unsynced"]
pytestmark = pytest.mark.usefixtures("unsynced")

SCORE = "val-core/sums/reward/mean@1"


def steps_of(directory: Path) -> list[int]:
    return [checkpoint.step for checkpoint in look(directory)]


def some(steps: Sequence[int], unfinished: Sequence[int] = (), damaged: Sequence[int] = ()) -> list[Checkpoint]:
    return [
        Checkpoint(Path(str(n)), n, None, "cut" if n in {*unfinished, *damaged} else None, n in unfinished)
        for n in sorted({*steps, *unfinished, *damaged})
    ]


def gone(
    checkpoints: list[Checkpoint], keep: int, scores: dict[int, float] | None = None, marks: Sequence[Mark] = ()
) -> list[int]:
    steps = [Step(number, {SCORE: score}) for number, score in (scores or {}).items()]
    return [checkpoint.step for checkpoint in to_remove(checkpoints, keep, steps, marks)]


def test_the_newest_stay_whichever_attempt_saved_them() -> None:
    assert gone(some([2, 4, 6, 8]), 2) == [2, 4]
    assert gone(some([2, 4]), 2) == [] and gone(some([2, 4]), 1) == [2] and gone([], 1) == []


def test_nothing_goes_for_one_that_is_not_whole() -> None:
    assert gone(some([2, 4], unfinished=[6]), 2) == []
    assert gone(some([2, 4], damaged=[6]), 1) == [2]
    # The rest of an interrupted save goes with the next whole one; what is damaged is left to be looked at.
    assert gone(some([2, 8], unfinished=[4], damaged=[6]), 2) == [4]
    assert gone(some([], unfinished=[2, 4]), 1) == []


def test_the_best_validation_score_stays() -> None:
    checkpoints = some([2, 4, 6, 8])
    assert gone(checkpoints, 1, {0: 0.9, 2: 0.5, 4: 0.7, 6: 0.6, 8: 0.1}) == [2, 6]
    assert gone(checkpoints, 1, {2: 0.5, 4: 0.7, 6: 0.7}) == [2, 4], "of equal ones the later"
    assert gone(checkpoints, 1, {3: 0.9, 7: 0.2}) == [2, 6], "validated at 3: 4 is nearest after it"
    assert gone(checkpoints, 1, {2: float("nan"), 4: 0.1}) == [2, 6]


def test_the_last_one_that_is_known_to_be_good_stays() -> None:
    """A rule needs several steps before it speaks, and those after the good one are saved meanwhile."""
    checkpoints = some([2, 4, 6, 8])
    assert [checkpoint.step for checkpoint in to_remove(checkpoints, 2, [], [], good_step=5)] == [2]
    assert [checkpoint.step for checkpoint in to_remove(checkpoints, 2, [], [], good_step=1)] == [2, 4]


def test_the_last_one_before_a_rule_was_first_broken_stays() -> None:
    checkpoints = some([2, 4, 6, 8, 10])
    marks = [Mark(5, WARNING, "entropy", ""), Mark(9, STOP, "entropy", ""), Mark(3, SETTING, "train.learning_rate", "")]
    assert gone(checkpoints, 1, marks=marks) == [2, 6, 8]
    assert gone(checkpoints, 1, marks=[*marks, Mark(2, WARNING, "length", ""), Mark(8, STOP, "gradient", "")]) == [2, 8]


@given(
    st.sets(st.integers(1, 40)),
    st.sets(st.integers(1, 40)),
    st.integers(1, 5),
    st.dictionaries(st.integers(0, 40), st.floats(0, 1)),
)
def test_whatever_goes_enough_stays(steps: set[int], cut: set[int], keep: int, scores: dict[int, float]) -> None:
    checkpoints = some(sorted(steps - cut), unfinished=sorted(cut))
    removed = gone(checkpoints, keep, scores)
    intact = [checkpoint.step for checkpoint in checkpoints if checkpoint.whole]
    left = [step for step in intact if step not in removed]
    assert intact[-keep:] == left[-keep:] and len(left) <= keep + 1
    assert all(step < intact[-1] for step in removed)


def test_whole_directories_go_and_leave_nothing(tmp_path: Path) -> None:
    checkpoints = tmp_path / "checkpoints"
    for step in range(1, 18):
        save(checkpoints, step)
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"step": 3, "data": {SCORE: 0.9}}) + "\n")
    add_mark(tmp_path, Mark(9, WARNING, "entropy", ""))
    (checkpoints / "aside" / "1").mkdir(parents=True)
    prune(tmp_path, checkpoints, 2)
    assert steps_of(checkpoints) == [3, 8, 16, 17]
    assert sorted(path.name for path in checkpoints.iterdir()) == sorted(
        ["aside", "latest_checkpointed_iteration.txt", *(f"global_step_{step}" for step in (3, 8, 16, 17))]
    )


def test_a_removal_that_was_cut_short_is_finished_and_never_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = tmp_path / "checkpoints"
    for step in (2, 4, 6):
        save(checkpoints, step)

    def killed(path: Path) -> None:
        (path / MANIFEST).unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(retention.shutil, "rmtree", killed)
        prune(tmp_path, checkpoints, 1)
    assert steps_of(checkpoints) == [6]
    prune(tmp_path, checkpoints, 1)
    assert not [*checkpoints.glob(".removed-*")]


def test_while_a_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "LOOK_EVERY_S", 0.01)
    checkpoints, lines = tmp_path / "checkpoints", list[str]()
    checkpoints.mkdir()
    save_unfinished(checkpoints, 1)
    with Retention(tmp_path, checkpoints, 2, lambda: 0, lines.append):
        for step in (2, 4, 6):
            save(checkpoints, step)
            save_unfinished(checkpoints, step + 1)
            until = time.monotonic() + 10
            while steps_of(checkpoints)[0] < step - 2 and time.monotonic() < until:
                time.sleep(0.01)
        save(checkpoints, 8)
    assert steps_of(checkpoints) == [6, 8] and lines == []


def test_what_cannot_be_removed_is_said_once_and_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "LOOK_EVERY_S", 0.01)
    checkpoints, lines, tried = tmp_path / "checkpoints", list[str](), threading.Semaphore(0)
    for step in (2, 4):
        save(checkpoints, step)

    def refused(path: Path) -> None:
        tried.release()
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", refused)
        with Retention(tmp_path, checkpoints, 1, lambda: 0, lines.append):
            assert all(tried.acquire(timeout=10) for _ in range(3))
    (line,) = lines
    assert line.startswith("old checkpoints are not removed: ") and "Permission denied" in line
    assert steps_of(checkpoints) == [4]
