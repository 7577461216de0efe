# SPDX-License-Identifier: Apache-2.0
"""Checks that say what a rule of `recipe.runfile` refuses: made from the rule's name, declared where they belong."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from recipe.checks.facts.run import Facts
from recipe.checks.finding import Complaint, bad
from recipe.runfile.engines import misfits
from recipe.runfile.schema import NPU


def broken(rule: str, complain: Callable[[str, str], Complaint] = bad) -> Callable[[Facts], Iterator[Complaint]]:
    """A check that says where a run breaks this rule of `recipe.runfile.layout.problems`."""

    def complaints(facts: Facts) -> Iterator[Complaint]:
        for problem in facts.derived.problems:
            if problem.rule == rule:
                yield complain(problem.text, "sizes that go together")

    return complaints


def refusal(rule: str) -> Callable[[Facts], Iterator[Complaint]]:
    """A check that says what MindSpeed, or its absence, rules out by this rule of `recipe.runfile.mindspeed`."""

    def complaints(facts: Facts) -> Iterator[Complaint]:
        for refused in facts.derived.refusals:
            if refused.rule == rule:
                yield bad(refused.found, refused.expected, refused.fix)

    return complaints


def unfit(rule: str) -> Callable[[Facts], Iterator[Complaint]]:
    """A check that says what model and device rule out of the engines by this rule of `recipe.runfile.engines`."""

    def complaints(facts: Facts) -> Iterator[Complaint]:
        strict = facts.device == NPU or facts.derived.strict
        for misfit in misfits(facts.config, facts.layout, facts.architecture, strict):
            if misfit.rule == rule:
                yield bad(misfit.found, misfit.expected)

    return complaints
