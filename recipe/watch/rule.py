# SPDX-License-Identifier: Apache-2.0
"""What a rule is: one declaration, and one function that judges a step.

    @rule("zero_gradient", "the gradient norm is 0", why="what it means", counts="why so many steps",
          warn_after=1, stop_after=2)
    def _zero_gradient(view: StepView) -> Symptom | None:
        reward = view.value(REWARD)
        return Symptom(f"with a mean reward of {reward}") if view.value(GRADIENT_NORM) == 0 else None

A rule returns what is bad about a step, or None when all is well with it. One that finds nothing to judge in a step
raises `NothingToJudge`; the step then neither adds to the bad steps in a row nor ends them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from recipe.watch.history import StepView


class NothingToJudge(Exception):
    """Raised by a rule whose metric this step, or this run, does not have by design."""


@dataclass(frozen=True)
class Symptom:
    """What is bad about a step: the figures, in a few words.

    `good`: the last step whose checkpoint it cannot have touched; None: that of the last step without a symptom.
    """

    figures: str
    good: int | None = None


Judge = Callable[["StepView"], "Symptom | None"]


@dataclass(frozen=True)
class Rule:
    """One declared rule. Its action is the key of its name in `[watch]`; `bounds` are the keys of its bounds there.

    `why` says what a breach means, `counts` why its bounds and numbers of steps are as they are. It warns after
    `warn_after` bad steps in a row and stops the run after `stop_after`; 0: it never does. `of_learning`: it only
    applies to runs that are there to learn. `of_validation`: it judges validations, which measure the weights after the
    step's update; all else in a step's metrics is measured before it.
    """

    name: str
    title: str
    why: str
    counts: str
    warn_after: int
    stop_after: int
    bounds: tuple[str, ...]
    of_learning: bool
    of_validation: bool
    judge: Judge

    @property
    def good_before(self) -> int:
        """A step without a symptom shows that the checkpoint this many steps before it is good."""
        return 0 if self.of_validation else 1


class Rules:
    """Rules by name, in the order of their declaration."""

    def __init__(self) -> None:
        self._rules: dict[str, Rule] = {}

    def rule(
        self, name: str, title: str, *, why: str, counts: str, warn_after: int, stop_after: int,
        bounds: tuple[str, ...] = (), of_learning: bool = True, of_validation: bool = False,
    ) -> Callable[[Judge], Judge]:  # fmt: skip
        """Declare the decorated function as a rule.

        Raises:
            ValueError: there is one of that name, or it would stop before it warns.
        """
        if name in self._rules or 0 < stop_after < warn_after or not max(warn_after, stop_after):
            raise ValueError(f"rule {name!r}: expected a new name, and numbers of steps that warn before they stop")

        def declare(judge: Judge) -> Judge:
            self._rules[name] = Rule(
                name, title, why, counts, warn_after, stop_after, bounds, of_learning, of_validation, judge
            )
            return judge

        return declare

    def __iter__(self) -> Iterator[Rule]:
        return iter(self._rules.values())

    def __len__(self) -> int:
        return len(self._rules)

    def __getitem__(self, name: str) -> Rule:
        return self._rules[name]


RULES = Rules()
rule = RULES.rule
