# SPDX-License-Identifier: Apache-2.0
"""Grades a batch in several worker processes.

A sample whose worker dies, or does not answer in time, is graded again by a new worker; when that happens twice it has
the verdict ``error`` or ``timeout`` and scores as an empty response. Other samples are not affected. Ahead of every
part of a batch go canaries, samples with known results; one that is graded otherwise raises, which stops the run.
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
from recipe.reward.processes.tier3 import Opinion, Pair, Tier3, require
from recipe.reward.verdict import Verdict
from recipe.reward.verifiers import DEFAULT, Result, Verifier, get_verifier, verify

WORKER = Path(__file__).with_name("worker.py")
#: Samples sent to a worker at once, and the seconds that it has for them; it needs some milliseconds.
PART, PART_SECONDS = 64, 20.0
#: Most processes where a run names no number; one grades some 10,000 typical answers a second.
MOST_WORKERS = 4
#: Deaths over one sample after which it is given up; deaths in a row, before anything was graded, that end the run.
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
    """A sample's result; ``lost`` counts the workers that died or were ended while they had the sample."""

    result: Result
    lost: int


class Pool:
    """Grading processes for one reward, started when first needed and replaced when they die.

    Args:
        verifier, mix: the reward, as for ``get_verifier``.
        workers: how many processes.
        seconds: how long a worker may take for a part of a batch before it is ended.
        worker: the program that the processes run.
        tier3: grades the answers that the processes cannot read; None: these stay ``unparseable``.
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
        """The results with tier 3's verdicts on what was ``unparseable``.

        A mix is graded anew unless it was given up: each of its rules may look at another answer than the first, whose
        verdict it has.
        """
        mixed, given_up = self.settings["mix"] is not None, (Verdict.ERROR, Verdict.TIMEOUT)
        places = [
            place
            for place, (result, _) in enumerate(graded)
            if result.verdict is Verdict.UNPARSEABLE or (mixed and result.verdict not in given_up)
        ]
        askers: dict[Pair, int] = {}  # the index of one sample with this pair
        for place in places:

            def note(answer: str, truth: str, place: int = place) -> Verdict:
                askers[answer, truth] = place
                return Verdict.UNPARSEABLE

            _verify(self.verifier, samples[place], note)
        opinions: dict[Pair, Opinion] = tier3.ask(list(askers))
        lost = Counter[int]()
        for pair, place in askers.items():
            lost[place] += opinions[pair].lost
        graded = list(graded)
        for place in places:
            result = _verify(self.verifier, samples[place], lambda answer, truth: opinions[answer, truth].verdict)
            graded[place] = Graded(result, graded[place].lost + lost[place])
        return graded

    def _graded(self, batch: _Batch, index: int) -> Graded:
        """What became of one sample; one that was given up scores as an empty response."""
        answer = batch.answers[index]
        if isinstance(answer, Result):
            return Graded(answer, batch.lost[index])
        empty = verify(self.verifier, "", batch.samples[index][1])
        return Graded(Result(empty.score, answer or Verdict.ERROR, False), batch.lost[index])

    def _serve(self, slot: LineProcess, batch: _Batch) -> None:
        """What one thread does for each worker: sends parts of the batch to it and keeps what comes back."""
        try:
            broken = 0  # deaths in a row before anything was graded
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
        # The verdicts are those of the default rule; another one may look at another answer.
        is_default = self.settings["mix"] is None and self.settings["name"] == DEFAULT
        for canary, verdict, score, answer in zip(CANARIES, CANARY_VERDICTS, self.expected, answers, strict=False):
            if answer.score != score or (is_default and answer.verdict.value != verdict):
                raise CanaryError(
                    f"the canary {canary[0]!r} with truth {canary[1]!r} was graded {answer.verdict.value}, score "
                    f"{answer.score}; expected score {score}. Stop, and find out what has changed the reward."
                )

    def _ask(self, slot: LineProcess, samples: Sequence[Sample]) -> tuple[list[Result], Verdict | None]:
        """What the worker answers, in order; where it ended before it had answered all, with the reason."""
        request = [[_as_json(part) for part in sample] for sample in samples]
        answers, late = slot.ask(request, len(samples), self.seconds, _result)
        if len(answers) == len(samples):
            return answers, None
        return answers, Verdict.TIMEOUT if late else Verdict.ERROR


class _Batch:
    """The samples of one call, cut into parts, and what became of them. All threads use it."""

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
        """Keeps what was graded and puts back what was not; the sample that the worker died with makes a part alone."""
        with self.changed:
            for index, result in zip(part, graded, strict=False):
                self.answers[index] = result
            missing = part[len(graded) :]
            if not missing:
                return
            suspect, rest = missing[0], missing[1:]
            self.lost[suspect] += 1
            if self.lost[suspect] >= GIVE_UP:
                self.answers[suspect] = failure
            else:
                self.parts.append([suspect])
            if rest:
                self.parts.append(rest)

    def part_done(self) -> None:
        """Says that a part which ``next_part`` gave out is dealt with."""
        with self.changed:
            self.working -= 1
            self.changed.notify_all()

    def fail(self, error: Exception) -> None:
        """Ends the batch; the first error counts."""
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
    score, verdict, has_format = line
    return Result(float(score), Verdict(verdict), bool(has_format))


def _as_json(value: Any) -> Any:
    """The value in JSON types: arrays as lists, what JSON has no type for as null."""
    value = value.tolist() if hasattr(value, "tolist") else value
    try:
        json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        return None
    return value
