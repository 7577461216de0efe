# SPDX-License-Identifier: Apache-2.0
"""Tier 3, off by default: what tiers 1 and 2 cannot read is put to math-verify, in processes of its own.

math-verify is a computer algebra system behind a LaTeX reader: texts can make it hang, fill the memory or reach
``eval``. So no text is read by it in this process; each answer has a deadline, at which its process is ended and
another started, and so has a batch. It would call work that is left undone right: see ``may_be_asked``.
"""

from __future__ import annotations

import importlib.util
import re
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from recipe.reward.grammar.answers import read
from recipe.reward.grammar.normalise import tidy
from recipe.reward.grammar.tokens import LONGEST_EXPRESSION
from recipe.reward.grammar.values import Measure, NamedValue
from recipe.reward.processes.errors import CanaryError, GraderError
from recipe.reward.processes.line_process import LineProcess
from recipe.reward.verdict import Verdict

#: The graders by the name that a run file gives, each with its package.
GRADERS = {"math_verify": "math_verify"}
REQUIREMENTS = "requirements-tier3.txt"
WORKER = Path(__file__).with_name("tier3_worker.py")

#: Seconds for one answer, for all of a batch, and for a process to say that it is ready.
ANSWER_SECONDS, BATCH_SECONDS, START_SECONDS = 2.0, 60.0, 60.0
#: Deaths over one answer after which it is given up; processes in a row that do not get ready, which end the run.
GIVE_UP, BROKEN = 2, 2

Pair = tuple[str, str]
CANARIES: tuple[tuple[Pair, Verdict], ...] = (
    (("1+\\sin x", "\\sin(x)+1"), Verdict.CORRECT),
    (("\\sin x", "\\cos x"), Verdict.WRONG),
)
# A sign that something is still to be worked out.
_WORK = re.compile(
    r"!|\\(?:[a-z]*int|sum|prod|lim|max|min|sup|inf|gcd|lcm|det|[a-z]?binom|[bp]?mod|partial)(?![A-Za-z])"
    r"|\\frac ?\{ ?d(?![A-Za-z])"
)
# A single number, or a fraction of two, with anything around it but digits.
_ONE_NUMBER = re.compile(r"[^0-9]*(?:[0-9]+(?:\.[0-9]+)?|\\frac ?\{ ?-?([0-9]+) ?\} ?\{ ?([0-9]+) ?\})[^0-9]*")
# A sign by which there could be another number, or something to work out.
_OPERATOR = re.compile(
    r"[+*/^_=<>,;!|&]|\\(?:cdot|sqrt|pm|mp|cup|cap|or|and|approx|sin|cos|tan|log|ln)(?![A-Za-z])|[0-9)}] ?-"
)


class Opinion(NamedTuple):
    """The verdict on a pair; ``lost`` counts the processes that died or were ended over it."""

    verdict: Verdict
    lost: int


def check_name(name: str, workers: int | None) -> None:
    """Raises ValueError for a grader that is not known, or for a run that does not grade in processes of their own."""
    if name not in GRADERS:
        raise ValueError(f"unknown tier3 {name!r}; known are {', '.join(sorted(GRADERS))}")
    if workers == 0:
        raise ValueError(f"tier3 = {name!r} grades in batches; set workers to 1 or more")


def require(name: str) -> None:
    """Raises ValueError for a grader that is not known, or whose package is not installed here."""
    check_name(name, None)
    if importlib.util.find_spec(GRADERS[name]) is None:
        raise ValueError(
            f"tier3 = {name!r} needs packages that are not installed here; run: {sys.executable} -m pip install "
            f"-r {REQUIREMENTS}, or leave tier3 out"
        )


def may_be_asked(answer: str, truth: str) -> bool:
    """Whether the answer can be right with no work left undone, so that math-verify may be asked about it.

    Where the truth is a number, the answer must hold a single number, in a spelling that tier 2 does not know. It may
    in no case have an integral, a sum, a factorial or the like that the truth does not have.
    """
    if len(answer) > LONGEST_EXPRESSION:
        return False
    text, value = tidy(answer), read(truth)
    value = value.value if isinstance(value, NamedValue) else value
    if isinstance(value, Measure) and value.literal is not None:
        number = _ONE_NUMBER.fullmatch(text)
        if number is None or _OPERATOR.search(text) or _WORK.search(text):
            return False
        # A fraction that comes to an integer is still to be worked out.
        return number[1] is None or (int(number[2]) > 0 and int(number[1]) % int(number[2]) > 0)
    return set(_WORK.findall(text)) <= set(_WORK.findall(tidy(truth)))


class Tier3:
    """Processes that grade what others cannot read, started when first needed.

    Args:
        workers: how many processes.
        seconds, batch_seconds: for one answer, and for all that are asked at once.
        worker: the program that the processes run.
    """

    def __init__(
        self, workers: int = 1, seconds: float = ANSWER_SECONDS, batch_seconds: float = BATCH_SECONDS,
        worker: Path = WORKER,
    ) -> None:  # fmt: skip
        self.seconds, self.batch_seconds = seconds, batch_seconds
        # -I and no variables: nothing of the environment but its packages is where foreign text is read.
        command = [sys.executable, "-I", "-B", str(worker)]
        self.slots = [LineProcess(command, environment={}, quiet=True) for _ in range(workers)]
        self.lock = threading.Lock()

    def pids(self) -> list[int]:
        """The processes that run now."""
        return [slot.pid for slot in self.slots if slot.pid is not None]

    def ask(self, pairs: Sequence[Pair]) -> dict[Pair, Opinion]:
        """The verdict on each pair of answer and truth. What the batch has no time for is a ``timeout``.

        Raises CanaryError when a pair with a known verdict gets another, GraderError when no process gets ready.
        """
        opinions = {pair: Opinion(Verdict.UNPARSEABLE, 0) for pair in pairs}
        waiting = deque(pair for pair in opinions if may_be_asked(*pair))
        if not waiting:
            return opinions
        end = time.monotonic() + self.batch_seconds
        errors: list[Exception] = []

        def serve(slot: LineProcess) -> None:
            try:
                self._check_canaries(slot)
                while not errors:
                    try:
                        pair = waiting.popleft()
                    except IndexError:
                        return
                    late = time.monotonic() > end
                    opinions[pair] = Opinion(Verdict.TIMEOUT, 0) if late else self._grade(slot, pair)
            except Exception as error:
                errors.append(error)

        with self.lock:
            threads = [threading.Thread(target=serve, args=(slot,)) for slot in self.slots[: len(waiting)]]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        if errors:
            raise errors[0]
        return opinions

    def close(self) -> None:
        """Ends the processes."""
        for slot in self.slots:
            slot.end()

    def _check_canaries(self, slot: LineProcess) -> None:
        for pair, expected in CANARIES:
            verdict = self._grade(slot, pair).verdict
            if verdict not in (expected, Verdict.TIMEOUT, Verdict.ERROR):
                raise CanaryError(
                    f"the canary of tier 3 {pair[0]!r} with truth {pair[1]!r} was graded {verdict.value}; expected "
                    f"{expected.value}. Stop, and install what {REQUIREMENTS} names, or leave tier3 out."
                )

    def _grade(self, slot: LineProcess, pair: Pair) -> Opinion:
        lost, late = 0, False
        # A death may not be the answer's fault, so it is asked once more; a hang is.
        while lost < GIVE_UP and not late:
            self._make_ready(slot)
            answers, late = slot.ask([tidy(pair[0]), tidy(pair[1]), self.seconds], 1, self.seconds, Verdict)
            if answers:
                return Opinion(answers[0], lost)
            lost += 1
        return Opinion(Verdict.TIMEOUT if late else Verdict.ERROR, lost)

    def _make_ready(self, slot: LineProcess) -> None:
        if slot.pid is not None:
            return
        for _ in range(BROKEN):
            if slot.ask(None, 1, START_SECONDS, str)[0] == ["ready"]:
                return
            slot.end()
        raise GraderError(f"the processes of tier 3 do not start; run {' '.join(slot.command)} to see why")
