# SPDX-License-Identifier: Apache-2.0
"""What a check is: one declaration, one function over the facts, and the findings it yields.

    @check("L004", "expert parallel divides the dies of a stage", needs="static",
           why="what goes wrong otherwise", fix="what to type")
    def _expert_parallel(facts: Facts) -> Iterator[Complaint]:
        if ...:
            yield bad(found="...", expected="...")

A check yields what is wrong and nothing when all is well. One that cannot tell raises `CannotTell`, which is a finding
of its own; one that this run has no use for raises `NoMatter`, which is not. Whatever else one raises is a fault of its
own: a finding that says what to report, and that stands in the way of nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from recipe.checks.crash import account, asks_to_stop
from recipe.checks.finding import CannotTell, CheckFinding, Complaint, NoMatter, line_of

if TYPE_CHECKING:
    from recipe.checks.facts.run import Facts

STATIC, FILES, NODE, CLUSTER, RUNS = "static", "files", "node", "cluster", "runs"
# What a check looks at.  static: the run file alone.  files: what the run reads, where it lies on this machine.
# node: this machine as one of the run's.  cluster: the Ray that runs.  runs: this machine, and what runs left on it.
NEEDS = (STATIC, FILES, NODE, CLUSTER, RUNS)
# What checks are about, by the first letter of their ids, in the order of the page.
SUBJECTS = {
    "C": "Run file",
    "L": "Layout",
    "T": "Training",
    "V": "Rollout (vLLM)",
    "M": "Memory",
    "W": "Weights",
    "D": "Data and reward",
    "P": "Packages and sources",
    "E": "Environment",
    "N": "Node",
    "R": "Ray",
    "X": "What users of this stack keep reporting",
}
_ID = re.compile(rf"[{''.join(SUBJECTS)}][0-9]{{3}}")

CheckFunction = Callable[[Any], Iterator[Complaint] | None]


@dataclass(frozen=True)
class Check:
    """One declared check.

    Attributes:
        id: a letter of SUBJECTS and a number, which stays.
        title: what is so when all is well.
        needs: what it looks at, one of NEEDS. Preflight runs all but those about runs that were.
        why: what happens otherwise.
        fix: what to do about it.
        function: yields complaints over the facts.
        any_run: what it says of a node hangs on no run file, so that doctor, which has none, says it too.
        stops_derivation: where it finds an error, nothing can be derived from the run file; C002 leaves it to say so.
    """

    id: str
    title: str
    needs: str
    why: str
    fix: str
    function: CheckFunction
    any_run: bool = False
    stops_derivation: bool = False

    def findings(self, facts: Facts) -> list[CheckFinding] | None:
        """What it finds; None where it does not apply to this run. Raises what ends the command, and nothing else."""
        findings: list[CheckFinding] = []
        try:
            for complaint in self.function(facts) or ():
                findings.append(self._finding(complaint))
        except NoMatter:
            return findings or None
        except CannotTell as reason:
            findings.append(self._untold(str(reason)))
        except ModuleNotFoundError as error:
            findings.append(self._untold(f"the package {error.name} is not installed"))
        except OSError as error:  # a disk that fails, a directory that may not be read, a name that is too long
            reason_text = f"{error.filename or 'a file'} cannot be looked at ({error.strerror or error})"
            findings.append(self._untold(reason_text))
        except BaseException as error:  # extensions in other languages raise their panics past Exception
            if asks_to_stop(error):
                raise
            findings.append(self._untold(account(error)))
        return findings

    def _finding(self, complaint: Complaint) -> CheckFinding:
        found, expected = line_of(complaint.found), line_of(complaint.expected)
        return CheckFinding(self.id, self.title, complaint.level, found, expected, line_of(complaint.fix or self.fix))

    def _untold(self, reason: str) -> CheckFinding:
        return CheckFinding(self.id, self.title, "not run", line_of(reason), "", "")


class Catalogue:
    """Checks by id; a second declaration of an id, or a badly formed one, is refused at import."""

    def __init__(self) -> None:
        self._checks: dict[str, Check] = {}

    def check(
        self,
        id: str,
        title: str,
        *,
        needs: str,
        why: str,
        fix: str,
        any_run: bool = False,
        stops_derivation: bool = False,
    ) -> Callable[[CheckFunction], CheckFunction]:
        """Declare the decorated function as a check; the arguments are the attributes of `Check`."""
        if not _ID.fullmatch(id) or needs not in NEEDS or id in self._checks:
            raise ValueError(
                f"check {id!r} ({needs}): expected a new id such as L001, whose letter is one of "
                f"recipe.checks.declaration.SUBJECTS ({''.join(SUBJECTS)}), and one of {', '.join(NEEDS)}"
            )

        def declare(function: CheckFunction) -> CheckFunction:
            self._checks[id] = Check(id, title, needs, why, fix, function, any_run, stops_derivation)
            return function

        return declare

    def __iter__(self) -> Iterator[Check]:
        return iter(sorted(self._checks.values(), key=lambda check: check.id))

    def __getitem__(self, id: str) -> Check:
        return self._checks[id]


# Filled by the modules of recipe/checks/catalogue/; `recipe.checks.catalogue.every_check` imports them all.
CATALOGUE = Catalogue()
check = CATALOGUE.check
