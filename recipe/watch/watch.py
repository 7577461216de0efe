# SPDX-License-Identifier: Apache-2.0
"""Feeds the steps of a run to the rules, one by one."""

from __future__ import annotations

from dataclasses import dataclass

from recipe.report.marks import STOP, WARNING
from recipe.report.metrics import Step
from recipe.runfile.schema import OFF, STOP_RUN, Watch
from recipe.watch.history import Context, History, StepView
from recipe.watch.rule import NothingToJudge, Rule, Symptom
from recipe.watch.rules import RULES

# Steps for which a rule that has warned is silent, unless it stops the run: a figure may hover about its bound.
QUIET_STEPS = 20


@dataclass(frozen=True)
class Breach:
    """A rule that has been broken for its number of steps: `kind` is WARNING or STOP of `recipe.report.marks`.

    `since` is the first of the bad steps in a row, `good` the last step whose checkpoint neither this rule nor one that
    stops runs speaks against (0: none).
    """

    rule: str
    kind: str
    step: int
    since: int
    good: int
    text: str


@dataclass
class _Streak:
    """Bad steps of one rule in a row."""

    count: int = 0
    since: int = 0
    good: int = 0
    last_fine: int = 0
    quiet_until: int = -1


class Watcher:
    """The rules, with the history of one run.

    `good` is the last step whose checkpoint no rule that stops runs speaks against (0: none).
    """

    def __init__(self, settings: Watch, context: Context) -> None:
        self._settings, self._context = settings, context
        self._history = History()
        self.good = 0
        self._streaks = {
            rule.name: _Streak()
            for rule in RULES
            if settings.enabled and getattr(settings, rule.name) != OFF and (context.learns or not rule.of_learning)
        }

    @property
    def rules(self) -> tuple[str, ...]:
        """The names of the rules that hold for this run."""
        return tuple(self._streaks)

    def feed(self, step: Step) -> list[Breach]:
        """The breaches that this step makes, in the order of the rules' declaration."""
        self._history.add(step)
        view = StepView(step, self._history, self._context, self._settings)
        judged = [
            (RULES[name], symptom) for name in self._streaks if (symptom := self._judge(RULES[name], view)) is not None
        ]
        broken = [streak.good for name, streak in self._streaks.items() if streak.count and self._stops(RULES[name])]
        self.good = min(broken, default=max(0, step.number - 1))
        return [breach for rule, symptom in judged if (breach := self._due(rule, symptom, step.number)) is not None]

    def _stops(self, rule: Rule) -> bool:
        return getattr(self._settings, rule.name) == STOP_RUN and rule.stop_after > 0

    def _judge(self, rule: Rule, view: StepView) -> Symptom | None:
        streak, number = self._streaks[rule.name], view.step.number
        try:
            symptom = rule.judge(view)
        except NothingToJudge:
            return None
        if symptom is None:
            streak.count, streak.last_fine = 0, number
            return None
        if not streak.count:
            good = streak.last_fine - rule.good_before if symptom.good is None else symptom.good
            streak.since, streak.good = number, max(0, good)
        streak.count += 1
        return symptom

    def _due(self, rule: Rule, symptom: Symptom, number: int) -> Breach | None:
        streak = self._streaks[rule.name]
        # Not only at the exact number of steps: a run that is continued after a stop has its streak already.
        if self._stops(rule) and streak.count >= rule.stop_after:
            kind = STOP
        elif streak.count == rule.warn_after and number > streak.quiet_until:
            kind, streak.quiet_until = WARNING, number + QUIET_STEPS
        else:
            return None
        place = f"step {number}" if streak.since == number else f"steps {streak.since} to {number}"
        text = f"{rule.title}: {symptom.figures} ({place})"
        return Breach(rule.name, kind, number, streak.since, min(self.good, streak.good), text)
