# SPDX-License-Identifier: Apache-2.0
"""Runs the checks over the facts and says what came of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from recipe.preflight.catalogue import LEVELS, Check, Finding


@dataclass(frozen=True)
class Report:
    """What the checks found, worst first, and how many had nothing to say."""

    findings: tuple[Finding, ...]
    passed: tuple[str, ...]
    without_matter: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing stands in the way of the run; warnings do not."""
        return not self.errors

    @property
    def errors(self) -> tuple[Finding, ...]:
        return self.at("error")

    @property
    def warnings(self) -> tuple[Finding, ...]:
        return self.at("warning")

    def at(self, level: str) -> tuple[Finding, ...]:
        return tuple(one for one in self.findings if one.level == level)

    @property
    def exit_code(self) -> int:
        return 0 if self.ok else 2

    @property
    def summary(self) -> str:
        """How many checks passed, warned, failed and could not tell."""
        at = Counter({level: len({one.id for one in self.at(level)}) for level in LEVELS})
        return (
            f"{len(self.passed)} checks passed, {at['error']} failed, {at['warning']} warn, {at['not run']} could not "
            f"be run here, {len(self.without_matter)} do not matter to this run"
        )

    def __add__(self, other: Report) -> Report:
        """Both reports as one."""
        return Report(
            _sorted(self.findings + other.findings),
            self.passed + other.passed,
            self.without_matter + other.without_matter,
        )

    def lines(self) -> list[str]:
        """Every finding in a line, worst first, those that could not tell together by their reason, and the summary."""
        untold: dict[str, list[str]] = {}
        for one in self.at("not run"):
            untold.setdefault(one.found, []).append(one.id)
        said = [one.line for one in self.findings if one.level != "not run"]
        return [*said, *(f"not run ({', '.join(ids)}): {why}" for why, ids in untold.items()), self.summary]

    def as_json(self) -> dict[str, Any]:
        return {
            "ok": self.ok,
            "findings": [asdict(one) for one in self.findings],
            "passed": list(self.passed),
            "do_not_matter": list(self.without_matter),
        }


def examine(checks: Iterable[Check], facts: Any) -> Report:
    """The report of these checks over these facts."""
    findings: list[Finding] = []
    passed, without_matter = [], []
    for one in checks:
        found = one.findings(facts)
        if found is None:
            without_matter.append(one.id)
        elif not found:
            passed.append(one.id)
        findings += found or ()
    return Report(_sorted(findings), tuple(passed), tuple(without_matter))


def _sorted(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    return tuple(sorted(findings, key=lambda one: (LEVELS.index(one.level), one.id)))
