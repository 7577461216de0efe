# SPDX-License-Identifier: Apache-2.0
"""Wrong answers made from truths by rule, each with an exact key of its value that our grader has no part in.

A truth and its mutation are built from Python's integers and fractions, never read from text. Where the keys are equal
the mutation happens to be right, and is left out; everything else that is paid is paid wrongly.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

from benchmarks.wrong_answers import MAKERS, same
from verl_patches.utils.reward_score.r1_zero import compute_score

_EXAMPLES = 20

#: Expressions without a value, of which every one is a wrong answer to everything.
UNDEFINED = tuple(
    r"""
0^{-1}; \frac{1}{0}; 1/0; \frac{0}{0}; 0^0; 0^{-2}; \frac{\pi}{0}; (1-1)^{-1}; \frac{1}{2-2};
\frac{5}{\sqrt{4}-2}; \frac{1}{\sqrt{12}-2\sqrt{3}}; (\sqrt{8}-2\sqrt{2})^{-1}; \ln 0; \log 0; \log_2 0;
\ln(-1); \log_1 7; \log_0 7; \tan\frac{\pi}{2}; \tan 90^\circ; \cot 0; \cot\pi; \sec\frac{\pi}{2}; \csc 0;
\csc\pi; \sqrt{-1}; \sqrt[4]{-2}; (-2)^{1/2}; (-1)^{\pi}; \arcsin 2; \arccos(-3); (-1)!; (\frac12)!;
\binom{2}{-1}; \frac{1}{x-x}; (x-x)^{-1}; (x-x)^0; \frac{1}{|0|}; \frac{1}{\lfloor\frac12\rfloor};
\frac{1}{\ln 1}; \frac{1}{\sin\pi}; 10^{10^{10}}; \frac{1}{10^{-2000000}}; \infty-\infty
""".strip()
    .replace("\n", " ")
    .split("; ")
)
#: What stands around them; "@" is the place.
_AROUND = tuple(
    r"""
@; @; 2\cdot @; @+1; -@; \sqrt{@}; (@,@); [@,\infty); x=@; @,@; @\text{ cm}; @:1; x\le @;
\begin{pmatrix}@\\@\end{pmatrix}; \{@,@\}; y=@x
""".strip()
    .replace("\n", " ")
    .split("; ")
)


def spans(records: list[dict[str, str]], rng: random.Random) -> Iterator[tuple[str, str, str]]:
    """Pieces of problems as answers, without end, with truth and problem; the number which is the truth is none."""
    while True:
        record = rng.choice(records)
        words = record["problem"].split()
        start = rng.randrange(len(words))
        piece = " ".join(words[start : start + rng.randint(1, 7)])
        piece = re.sub(r"^[A-Za-z ,]+ (?=[0-9\\$])|[?.,]$", "", piece)
        numbers = re.findall(r"[0-9]+(?:\.[0-9]+)?", piece.replace(",", ""))
        try:
            right = len(numbers) == 1 and Fraction(numbers[0]) == Fraction(record["answer"])
        except ValueError:
            right = record["answer"] in piece
        if piece.strip() and not right:
            yield piece, record["answer"], record["problem"]


class Case(NamedTuple):
    """``problem`` is empty where the answer is no piece of it."""

    rule: str
    answer: str
    truth: str
    wrong: bool
    problem: str = ""


def cases(count: int, records: list[dict[str, str]], seed: int = 0) -> Iterator[Case]:
    """``count`` wrong answers, and for one in ten a right one besides."""
    rng = random.Random(f"adversary {seed}")
    pieces = spans(records, rng)
    made = 0
    while made < count:
        truth, wrong = rng.choice(MAKERS)(rng)
        kind = rng.random()
        if kind < 0.15:
            yield Case("undefined", rng.choice(_AROUND).replace("@", rng.choice(UNDEFINED)), truth.text, True)
        elif kind < 0.25:
            piece, answer, problem = next(pieces)
            yield Case("span of the problem", piece, answer, True, problem)
        else:
            rule, wrong_thing = rng.choice(wrong)
            if same(wrong_thing.key, truth.key):
                yield Case("happens to be right", wrong_thing.text, truth.text, False)
                continue
            yield Case(rule, wrong_thing.text, truth.text, True)
        made += 1
        if made % 10 == 0:
            yield Case("right", truth.text, truth.text.replace("\\frac", "\\dfrac").replace("  ", " "), False)


@dataclass
class Tally:
    """What came of a run; ``by_rule`` counts wrong pairs, ``paid`` has examples of those that were paid."""

    pairs: int
    paid_wrongly: int
    happen_to_be_right: int
    right_refused: int
    by_rule: dict[str, int]
    paid: list[list[str]]

    def as_dict(self) -> dict[str, Any]:
        return {
            "adversary_pairs": self.pairs, "paid_wrongly": self.paid_wrongly,
            "adversary_happen_to_be_right": self.happen_to_be_right, "adversary_right_refused": self.right_refused,
            "adversary_by_rule": self.by_rule, "adversary_paid": self.paid,
        }  # fmt: skip


def is_paid(case: Case) -> bool:
    """Whether the run's default reward pays for the answer."""
    response = f"<think></think><answer>\\boxed{{{case.answer}}}</answer>"
    extra = {"problem": case.problem} if case.problem else None
    return compute_score("", response, case.truth, extra_info=extra)["acc"] == 1.0


def run(count: int, records: list[dict[str, str]], paid: Callable[[Case], bool] = is_paid, seed: int = 0) -> Tally:
    """Grades ``count`` wrong answers, and right ones besides so that a grader which refuses all is found out."""
    by_rule: Counter[str] = Counter()
    outcome = Tally(0, 0, 0, 0, {}, [])
    for case in cases(count, records, seed):
        pays = paid(case)
        if case.wrong:
            by_rule[case.rule] += 1
            outcome.paid_wrongly += pays
            if pays and len(outcome.paid) < _EXAMPLES:
                outcome.paid.append([case.rule, case.answer, case.truth])
        elif case.rule == "right":
            outcome.right_refused += not pays
        else:
            outcome.happen_to_be_right += 1
    outcome.pairs, outcome.by_rule = sum(by_rule.values()), dict(sorted(by_rule.items()))
    return outcome
