# SPDX-License-Identifier: Apache-2.0
"""The rewards that a run can name, each a rule over one response and its ground truth.

==================  ==============  ================================================================================
name                range           rule
==================  ==============  ================================================================================
``format``          0, 1            1 when ``response.has_format`` holds
``strict_format``   -0.5, 1         1 when ``response.has_format`` holds, else -0.5
``acc``             0, 1            1 when the format holds and the last box inside ``<answer>`` is right
``base_acc``        0, 1            the same as ``acc``, under the name that MindSpeed-RL's configurations use
``r1_zero``         0 … 1           0.33 for the format + 0.67 for the right answer inside ``<answer>``, each alone
``step``            0 … 1           a third for each mark of a step, at most 1; see ``count_steps``
``math_17k_acc``    0, 1            1 when the last box anywhere in the response is right
``dapo``            -1, 1           1 when what follows the last "Answer:" of the last 300 characters is right
``math_lighteval``  0, 1            1 when the last box anywhere is right as a normalised text or a plain number
==================  ==============  ================================================================================

"Right" is ``grade``'s verdict ``correct``, for ``math_lighteval`` without expressions; with the problem at hand, work
copied from it is not right (``copied``). ``step``, and every rule that looks outside ``<answer>``, can be earned
without reasoning: they are for comparing with other recipes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from recipe.reward.copied import grade_answer, grade_response, grade_text
from recipe.reward.grade import Appeal
from recipe.reward.response import has_format, last_box
from recipe.reward.verdict import Verdict

DEFAULT = "r1_zero"
FORMAT_WEIGHT, ACCURACY_WEIGHT = 0.33, 0.67
#: Characters at the end of the response in which ``dapo`` looks for "Answer:".
DAPO_WINDOW = 300
#: So many marks of a step earn all that ``step`` pays.
ENOUGH_STEPS = 3

_STEP = re.compile(r"^[ \t]*(?:step [0-9]{1,3}[:.]|[0-9]{1,3}[.)] |[-*] |first,|second,|next,|finally,)", re.I | re.M)
_ANSWER_MARK = re.compile(r"answer\s{0,9}:", re.IGNORECASE)


@dataclass(frozen=True)
class Result:
    """What a rule says of one response.

    ``score`` is the reward; ``verdict`` is on the answer that the rule looks at; ``format`` is ``has_format``'s.
    """

    score: float
    verdict: Verdict
    format: bool

    def as_dict(self) -> dict[str, Any]:
        """What verl's reward managers take: ``score`` as the reward, the rest beside it."""
        right = self.verdict is Verdict.CORRECT
        return {"score": self.score, "acc": float(right), "format": float(self.format), "verdict": self.verdict.value}


class Verifier(Protocol):
    """A rule over a response and its ground truth.

    ``appeal`` is tier 3, where a run has it. Work copied from the text ``problem`` is not right; None allows it.
    """

    def __call__(
        self, response: str, truth: Any, appeal: Appeal | None = None, problem: str | None = None, /
    ) -> Result: ...


def _format(response: str, truth: Any, appeal: Appeal | None = None, problem: str | None = None) -> Result:
    form = has_format(response)
    return Result(float(form), grade_response(response, truth, appeal, problem), form)


def _strict_format(response: str, truth: Any, appeal: Appeal | None = None, problem: str | None = None) -> Result:
    form = has_format(response)
    return Result(1.0 if form else -0.5, grade_response(response, truth, appeal, problem), form)


def _acc(response: str, truth: Any, appeal: Appeal | None = None, problem: str | None = None) -> Result:
    form, verdict = has_format(response), grade_response(response, truth, appeal, problem)
    return Result(float(form and verdict is Verdict.CORRECT), verdict, form)


def _r1_zero(response: str, truth: Any, appeal: Appeal | None = None, problem: str | None = None) -> Result:
    form, verdict = has_format(response), grade_response(response, truth, appeal, problem)
    return Result(FORMAT_WEIGHT * form + ACCURACY_WEIGHT * (verdict is Verdict.CORRECT), verdict, form)


def _step(response: str, truth: Any, appeal: Appeal | None = None, problem: str | None = None) -> Result:
    score = min(1.0, count_steps(response) / ENOUGH_STEPS)
    return Result(score, grade_response(response, truth, appeal, problem), has_format(response))


def _math_17k_acc(response: str, truth: Any, appeal: Appeal | None = None, problem: str | None = None) -> Result:
    verdict = grade_answer(last_box(response), truth, appeal, problem)
    return Result(float(verdict is Verdict.CORRECT), verdict, has_format(response))


def _dapo(response: str, truth: Any, appeal: Appeal | None = None, problem: str | None = None) -> Result:
    window = response[-DAPO_WINDOW:]
    marks = list(_ANSWER_MARK.finditer(window))
    answer = window[marks[-1].end() :].lstrip().split("\n", 1)[0] if marks else None
    verdict = grade_answer(answer, truth, appeal, problem)
    return Result(1.0 if verdict is Verdict.CORRECT else -1.0, verdict, has_format(response))


def _math_lighteval(response: str, truth: Any, appeal: Appeal | None = None, problem: str | None = None) -> Result:
    verdict = grade_text(last_box(response), truth, problem)
    return Result(float(verdict is Verdict.CORRECT), verdict, has_format(response))


VERIFIERS: dict[str, Verifier] = {
    "format": _format,
    "strict_format": _strict_format,
    "acc": _acc,
    "base_acc": _acc,
    "r1_zero": _r1_zero,
    "step": _step,
    "math_17k_acc": _math_17k_acc,
    "dapo": _dapo,
    "math_lighteval": _math_lighteval,
}


def count_steps(response: str) -> int:
    """Lines that begin with "Step 1:", "1. ", "- ", "* ", "First,", "Second,", "Next," or "Finally,", in any case."""
    return sum(1 for _ in _STEP.finditer(response))


def get_verifier(name: str = DEFAULT, mix: Mapping[str, float] | None = None) -> Verifier:
    """The verifier of that name or, with ``mix`` (weights by name), the weighted sum of several.

    The verdict of a mix is that of its first verifier. Raises ValueError for a name that is not known, and for a mix
    that is empty or has a weight that is no finite number.
    """
    if mix is None:
        return _known(name)
    weighted = [(_known(rule), _weight(rule, weight)) for rule, weight in mix.items()]
    if not weighted:
        raise ValueError("the mix of rewards is empty; give weights by name, such as {format = 0.33, acc = 0.67}")

    def mixed(response: str, truth: Any, appeal: Appeal | None = None, problem: str | None = None) -> Result:
        results = [verifier(response, truth, appeal, problem) for verifier, _ in weighted]
        score = sum(weight * result.score for (_, weight), result in zip(weighted, results, strict=True))
        return Result(score, results[0].verdict, results[0].format)

    return mixed


def verify(
    verifier: Verifier, response: Any, truth: Any, appeal: Appeal | None = None, problem: str | None = None
) -> Result:
    """The result for any response, with the arguments of ``Verifier``; one that is no text scores as an empty one."""
    if isinstance(response, str):
        return verifier(response, truth, appeal, problem)
    return Result(verifier("", truth).score, Verdict.ERROR, False)


def _known(name: str) -> Verifier:
    if name not in VERIFIERS:
        raise ValueError(f"unknown reward {name!r}; known are {', '.join(sorted(VERIFIERS))}")
    return VERIFIERS[name]


def _weight(name: str, weight: Any) -> float:
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not math.isfinite(weight):
        raise ValueError(f"the weight of reward {name!r} is {weight!r}; it must be a finite number")
    return float(weight)
