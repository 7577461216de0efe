# SPDX-License-Identifier: Apache-2.0
"""Runs the checks over the facts and says what came of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from recipe.checks.declaration import Check
from recipe.checks.finding import LEVELS, CheckFinding


@dataclass(frozen=True)
class Report:
    """What the checks found, worst first, and how many had nothing to say."""

    findings: tuple[CheckFinding, ...]
    passed: tuple[str, ...]
    without_matter: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing stands in the way of the run; warnings do not."""
        return not self.errors

    @property
    def errors(self) -> tuple[CheckFinding, ...]:
        return self.at("error")

    @property
    def warnings(self) -> tuple[CheckFinding, ...]:
        return self.at("warning")

    def at(self, level: str) -> tuple[CheckFinding, ...]:
        return tuple(finding for finding in self.findings if finding.level == level)

    @property
    def exit_code(self) -> int:
        return 0 if self.ok else 2

    @property
    def summary(self) -> str:
        """How many checks passed, warned, failed and could not tell."""
        checks = Counter({level: len({finding.id for finding in self.at(level)}) for level in LEVELS})
        return (
            f"{len(self.passed)} checks passed, {checks['error']} failed, {checks['warning']} warn, "
            f"{checks['not run']} could not be run here, {len(self.without_matter)} do not matter to this run"
        )

    def lines(self) -> list[str]:
        """Every finding in a line, worst first, those that could not tell together by their reason, and the summary."""
        untold: dict[str, list[str]] = {}
        for finding in self.at("not run"):
            untold.setdefault(finding.found, []).append(finding.id)
        lines = [finding.line for finding in self.findings if finding.level != "not run"]
        return [*lines, *(f"not run ({', '.join(ids)}): {why}" for why, ids in untold.items()), self.summary]

    def as_json(self) -> dict[str, Any]:
        return {
            "ok": self.ok,
            "findings": [asdict(finding) for finding in self.findings],
            "passed": list(self.passed),
            "do_not_matter": list(self.without_matter),
        }


def examine(checks: Iterable[Check], facts: Any) -> Report:
    """The report of these checks over these facts."""
    findings: list[CheckFinding] = []
    passed, without_matter = [], []
    for check in checks:
        new = check.findings(facts)
        if new is None:
            without_matter.append(check.id)
        elif not new:
            passed.append(check.id)
        findings += new or ()
    findings.sort(key=lambda finding: (LEVELS.index(finding.level), finding.id))
    return Report(tuple(findings), tuple(passed), tuple(without_matter))
