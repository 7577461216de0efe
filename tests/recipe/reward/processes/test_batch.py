# SPDX-License-Identifier: Apache-2.0
"""Batches are graded in processes of their own: what a dying, hanging or lying one does to the verdicts."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from recipe.reward.processes import batch
from recipe.reward.processes.batch import CanaryError, GraderError, Pool, _as_json
from recipe.reward.verifiers import get_verifier, verify

SAMPLES: list[tuple[Any, Any]] = [
    (f"<think>{i}</think><answer>\\boxed{{{i % 7}}}</answer>", str(i % 5)) for i in range(5 * batch.PART + 3)
]
REWARD = get_verifier()
EXPECTED = [verify(REWARD, *sample).as_dict() for sample in SAMPLES]

# Each stands in for the worker; `verify` is where a text is graded.
PROGRAM = """
import os, sys, time
sys.path.insert(0, {root!r})
from recipe.reward import verifiers
from recipe.reward.processes import worker
original = verifiers.verify
def verify(verifier, response, truth, *more):
    {line}
    return original(verifier, response, truth, *more)
verifiers.verify = verify
worker.serve(sys.stdin, sys.stdout)
"""


@pytest.fixture
def pool() -> Iterator[Pool]:
    pool = Pool(workers=2)
    yield pool
    pool.close()


def pool_with(tmp_path: Path, line: str, **settings: Any) -> Pool:
    program = tmp_path / "worker.py"
    program.write_text(PROGRAM.format(root=str(Path(__file__).parents[4]), line=line), encoding="utf-8")
    return Pool(worker=program, **settings)


def scores(graded: list[batch.Graded]) -> list[dict[str, Any]]:
    return [sample.result.as_dict() for sample in graded]


def test_a_batch_has_the_verdicts_of_its_samples_in_order(pool: Pool) -> None:
    assert scores(pool.grade(SAMPLES)) == EXPECTED
    pids = pool.pids()
    assert scores(pool.grade(SAMPLES[:1])) == EXPECTED[:1]
    assert pool.grade([]) == []
    assert pool.pids() == pids and len(pids) == 2


def test_any_response_and_truth_crosses(pool: Pool) -> None:
    import numpy as np

    odd = [("\ud800\x00\n", "5"), (None, "5"), (b"5", "5"), ("<answer>\\boxed{2}</answer>", np.array(["1", "2"])),
           ("<answer>\\boxed{2}</answer>", object()), ("<answer>\\boxed{2}</answer>", np.int64(2))]  # fmt: skip
    assert scores(pool.grade(odd)) == [verify(REWARD, text, _as_json(truth)).as_dict() for text, truth in odd]
    assert [score["verdict"] for score in scores(pool.grade(odd))] == [
        "no_answer", "error", "error", "correct", "error", "correct",
    ]  # fmt: skip


def test_kill_9_in_mid_batch_changes_no_verdict(pool: Pool) -> None:
    pool.grade(SAMPLES)
    victim = pool.pids()[0]
    os.kill(victim, signal.SIGSTOP)  # so that the kill below hits it while it has a part of the batch
    killer = threading.Timer(0.3, os.kill, (victim, signal.SIGKILL))
    killer.start()
    graded = pool.grade(SAMPLES)
    killer.join()
    assert scores(graded) == EXPECTED
    assert sum(sample.lost for sample in graded) == 1
    assert scores(pool.grade(SAMPLES)) == EXPECTED
    assert victim not in pool.pids() and len(pool.pids()) == 2


def test_a_worker_that_hangs_is_ended_and_replaced(tmp_path: Path) -> None:
    hanging = pool_with(tmp_path, "if response == 'hang': time.sleep(100)", seconds=1.0)
    graded = hanging.grade([*SAMPLES[:40], ("hang", "1"), *SAMPLES[40:]])
    hanging.close()
    assert scores(graded[:40] + graded[41:]) == EXPECTED
    assert graded[40].result.as_dict() == {"score": 0.0, "acc": 0.0, "format": 0.0, "verdict": "timeout"}
    assert graded[40].lost == batch.GIVE_UP and sum(sample.lost for sample in graded) == batch.GIVE_UP


def test_a_sample_that_kills_its_worker_costs_only_itself(tmp_path: Path) -> None:
    dying = pool_with(tmp_path, "if response == 'die': os._exit(1)", workers=2)
    graded = dying.grade([*SAMPLES[:70], ("die", "1"), *SAMPLES[70:], ("die", "1")])
    dying.close()
    assert scores(graded[:70] + graded[71:-1]) == EXPECTED
    assert [graded[place].result.verdict.value for place in (70, -1)] == ["error", "error"]


@pytest.mark.parametrize("settings", [{}, {"verifier": "dapo"}, {"mix": {"format": 0.3, "acc": 0.7}}])
def test_a_wrong_canary_stops_the_run(tmp_path: Path, settings: dict[str, Any]) -> None:
    lying = pool_with(tmp_path, "return verifiers.Result(1.0, verifiers.Verdict.CORRECT, True)", workers=2, **settings)
    with pytest.raises(CanaryError, match=r"the canary .* was graded correct"):
        lying.grade(SAMPLES)
    lying.close()


def test_canaries_have_the_verdicts_that_are_written_down() -> None:
    results = [verify(REWARD, *canary[:2], None, *canary[2:]) for canary in batch.CANARIES]
    assert tuple(result.verdict.value for result in results) == batch.CANARY_VERDICTS


def test_workers_that_never_grade_are_reported(tmp_path: Path) -> None:
    broken = pool_with(tmp_path, "os._exit(1)")
    with pytest.raises(GraderError, match="ended before they graded anything"):
        broken.grade(SAMPLES)
    assert broken.pids() == []
