# SPDX-License-Identifier: Apache-2.0
"""Grades batches in processes of their own, so that no text can take the trainer down or hold it up.

A sample whose worker dies, or does not answer in time, is graded again by a new worker; when that happens twice it has
the verdict ``error`` or ``timeout`` and scores as an empty response. Other samples are not affected. Canaries, samples
with known results, go ahead of every part of a batch; a wrong one raises, which stops the run.
"""

from __future__ import annotations

import atexit
import json
import os
import sys
import threading
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from recipe.reward.grade import Appeal
from recipe.reward.processes.errors import CanaryError, GraderError
from recipe.reward.processes.line_process import LineProcess
from recipe.reward.processes.tier3 import Asked, Pair, Tier3, require
from recipe.reward.verdict import Verdict
from recipe.reward.verifiers import DEFAULT, Result, Verifier, get_verifier, verify

WORKER = Path(__file__).with_name("worker.py")
#: Samples sent to a worker at once, and seconds it has for them; they take it some milliseconds.
PART, PART_SECONDS = 64, 20.0
#: Most processes by default; one grades some 10,000 typical answers a second.
MOST_WORKERS = 4
#: Deaths over one sample after which it is given up, and of workers that have graded nothing in a row.
GIVE_UP, BROKEN = 2, 4

#: A response, its ground truth and, where no work may be copied from it, the problem.
Sample = tuple[Any, Any] | tuple[Any, Any, str | None]
CANARIES: tuple[Sample, ...] = (
    ("<think>a</think><answer>\\boxed{1/2}</answer>", "0.5"),
    ("<think>a</think><answer>\\boxed{2}</answer>", "12"),
    ("<think>12</think><answer>12</answer>", "12"),
    ("<answer>\\boxed{2\\sqrt{3}}</answer>", "\\sqrt{12}"),
    ("<think>a</think><answer>\\boxed{9^9^9^9}</answer>", "1"),
    ("Step 1: a\nAnswer: 7", "7"),
    ("<answer>\\boxed{x+x}</answer>", "2x", "What is $x + x$?"),
)
CANARY_VERDICTS = ("correct", "wrong", "no_answer", "correct", "unparseable", "no_answer", "copied")


class Graded(NamedTuple):
    """``lost``: how many workers died or were ended while they had this sample."""

    result: Result
    lost: int


class Pool:
    """Grading processes for one reward, started when first needed and replaced when they die.

    Args:
        verifier, mix: the reward, as for ``get_verifier``.
        workers: how many processes.
        seconds: after which a worker that has not answered a part of a batch is ended.
        worker: the program that the processes run.
        tier3: is asked about the answers that the processes cannot read.
    """

    def __init__(
        self, verifier: str = DEFAULT, mix: Mapping[str, float] | None = None, workers: int = 1,
        seconds: float = PART_SECONDS, worker: Path = WORKER, tier3: Tier3 | None = None,
    ) -> None:  # fmt: skip
        self.verifier = get_verifier(verifier, mix)
        self.settings = {"name": verifier, "mix": None if mix is None else dict(mix)}
        self.seconds, self.tier3 = seconds, tier3
        self.expected = [_verify(self.verifier, canary).score for canary in CANARIES]
        # -I and -S: nothing of the environment, and none of its packages, is in the process that reads foreign text.
        command = [sys.executable, "-I", "-S", str(worker)]
        self.slots = [LineProcess(command, self.settings) for _ in range(workers)]
        self.lock = threading.Lock()

    def pids(self) -> list[int]:
        """The processes that run now."""
        return [slot.pid for slot in self.slots if slot.pid is not None]

    def grade(self, samples: Sequence[Sample]) -> list[Graded]:
        """The results, in order. Raises CanaryError, or GraderError when workers die before they grade anything."""
        with self.lock:
            batch = _Batch(samples)
            threads = [threading.Thread(target=self._serve, args=(slot, batch)) for slot in self.slots]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        if batch.error is not None:
            raise batch.error
        graded = [self._graded(batch, index) for index in range(len(samples))]
        return graded if self.tier3 is None else self._appeal(self.tier3, samples, graded)

    def close(self) -> None:
        """Ends the processes."""
        for slot in self.slots:
            slot.end()
        if self.tier3 is not None:
            self.tier3.close()

    def _appeal(self, tier3: Tier3, samples: Sequence[Sample], graded: list[Graded]) -> list[Graded]:
        """The results with tier 3 in place of ``unparseable``; a mix may look at other answers than its verdict's."""
        mixed, given_up = self.settings["mix"] is not None, (Verdict.ERROR, Verdict.TIMEOUT)
        places = [
            place
            for place, (result, _) in enumerate(graded)
            if result.verdict is Verdict.UNPARSEABLE or (mixed and result.verdict not in given_up)
        ]
        wanted: dict[Pair, int] = {}  # with one of the samples that ask
        for place in places:

            def note(answer: str, truth: str, place: int = place) -> Verdict:
                wanted[answer, truth] = place
                return Verdict.UNPARSEABLE

            _verify(self.verifier, samples[place], note)
        asked: dict[Pair, Asked] = tier3.ask(list(wanted))
        lost = Counter[int]()
        for pair, place in wanted.items():
            lost[place] += asked[pair].lost
        graded = list(graded)
        for place in places:
            result = _verify(self.verifier, samples[place], lambda answer, truth: asked[answer, truth].verdict)
            graded[place] = Graded(result, graded[place].lost + lost[place])
        return graded

    def _graded(self, batch: _Batch, index: int) -> Graded:
        answer = batch.answers[index]
        if isinstance(answer, Result):
            return Graded(answer, batch.lost[index])
        empty = verify(self.verifier, "", batch.samples[index][1])
        return Graded(Result(empty.score, answer or Verdict.ERROR, False), batch.lost[index])

    def _serve(self, slot: LineProcess, batch: _Batch) -> None:
        """One thread for each worker: sends parts of the batch to it and collects what comes back."""
        try:
            broken = 0
            while (part := batch.next_part()) is not None:
                try:
                    answers, failure = self._ask(slot, [*CANARIES, *(batch.samples[index] for index in part)])
                    self._check_canaries(answers)
                    graded = answers[len(CANARIES) :]
                    broken = broken + 1 if failure and not graded and len(answers) < len(CANARIES) else 0
                    if broken == BROKEN:
                        raise GraderError(f"{broken} grading processes in a row ended before they graded anything")
                    batch.store(part, graded, failure)
                finally:
                    batch.part_done()
        except Exception as error:
            batch.fail(error)

    def _check_canaries(self, answers: Sequence[Result]) -> None:
        for canary, verdict, score, answer in zip(CANARIES, CANARY_VERDICTS, self.expected, answers, strict=False):
            other_rule = self.settings["mix"] is not None or self.settings["name"] != DEFAULT
            if answer.score != score or not (other_rule or answer.verdict.value == verdict):
                raise CanaryError(
                    f"the canary {canary[0]!r} with truth {canary[1]!r} was graded {answer.verdict.value}, score "
                    f"{answer.score}; expected score {score}. Stop, and find out what has changed the reward."
                )

    def _ask(self, slot: LineProcess, samples: Sequence[Sample]) -> tuple[list[Result], Verdict | None]:
        """What the worker answers, in order, and why it ended before it had answered all."""
        request = [[_plain(part) for part in sample] for sample in samples]
        answers, late = slot.ask(request, len(samples), self.seconds, _result)
        if len(answers) == len(samples):
            return answers, None
        return answers, Verdict.TIMEOUT if late else Verdict.ERROR


class _Batch:
    """The samples of one call and what is known of them; used by all threads."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self.samples = samples
        self.answers: list[Result | Verdict | None] = [None] * len(samples)
        self.lost = [0] * len(samples)
        self.error: Exception | None = None
        places = list(range(len(samples)))
        self.parts = deque(places[start : start + PART] for start in range(0, len(samples), PART))
        self.working = 0
        self.changed = threading.Condition()

    def next_part(self) -> list[int] | None:
        """Places of samples to grade, or None when all are graded; waits for parts that may come back."""
        with self.changed:
            while self.error is None:
                if self.parts:
                    self.working += 1
                    return self.parts.popleft()
                if not self.working:
                    return None
                self.changed.wait()
            return None

    def store(self, part: list[int], graded: Sequence[Result], failure: Verdict | None) -> None:
        """Keeps what was graded; what was not is graded again, the sample that the worker died with on its own."""
        with self.changed:
            for index, result in zip(part, graded, strict=False):
                self.answers[index] = result
            left = part[len(graded) :]
            if not left:
                return
            suspect, rest = left[0], left[1:]
            self.lost[suspect] += 1
            if self.lost[suspect] >= GIVE_UP:
                self.answers[suspect] = failure
            else:
                self.parts.append([suspect])
            if rest:
                self.parts.append(rest)

    def part_done(self) -> None:
        with self.changed:
            self.working -= 1
            self.changed.notify_all()

    def fail(self, error: Exception) -> None:
        with self.changed:
            self.error = self.error or error
            self.changed.notify_all()


_POOLS: dict[str, Pool] = {}


def pool_for(verifier: str, mix: Mapping[str, float] | None, workers: int | None, tier3: str | None = None) -> Pool:
    """The pool of this process for a reward, kept for the next batch. Raises ValueError where it cannot be had."""
    count = min(MOST_WORKERS, os.cpu_count() or 1) if workers is None else workers
    if count < 1:
        raise ValueError(f"{count} grading processes; at least one is needed")
    key = json.dumps([verifier, None if mix is None else dict(mix), count, tier3])
    if key not in _POOLS:
        if tier3 is not None:
            require(tier3)
        _POOLS[key] = Pool(verifier, mix, count, tier3=None if tier3 is None else Tier3(count))
        atexit.register(_POOLS[key].close)
    return _POOLS[key]


def _verify(verifier: Verifier, sample: Sample, appeal: Appeal | None = None) -> Result:
    response, truth, *problem = sample
    return verify(verifier, response, truth, appeal, *problem)


def _result(line: Any) -> Result:
    score, verdict, form = line
    return Result(float(score), Verdict(verdict), bool(form))


def _plain(value: Any) -> Any:
    """The value in JSON types: arrays as lists, what JSON has no type for as null."""
    value = value.tolist() if hasattr(value, "tolist") else value
    try:
        json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        return None
    return value
